"""Sentences on the number of training rows: what the power law says, or why there is none."""

from typing import Any

from loragrid.formatting import listed, number, plural, whole

WHY_NO_FIT = {
    "too_few_sizes": "A power law is fitted only to three or more sizes.",
    "too_few_seeds": "A power law is fitted only where three or more sizes have two or more seeds each.",
    "no_power_law": "No power law with a falling loss fits these runs.",
}


def curve_finding(curve: dict[str, Any]) -> str:
    """What the held-out loss does over the rows, with the interval of the law's exponent."""
    fit = curve["fit"]
    if fit["code"] != "fitted":
        return WHY_NO_FIT[fit["code"]]
    rows = f"{whole(curve['rows'][0])} to {whole(curve['rows'][-1])} rows"
    double = whole(2 * curve["rows"][-1])
    law = (
        f"Over {rows} the held-out loss follows a + b · rows⁻ᶜ with c = {_with_interval(fit['c'], 2)} "
        f"and a floor a = {_with_interval(fit['a'])}."
    )
    open_exponent = " The exponent’s interval reaches 0, so a fall is not proved." if fit["c"][1] <= 0 else ""
    return (
        f"{law}{open_exponent} By this law twice the rows ({double}) would give {_with_interval(fit['at_double'])} "
        f"instead of {number(fit['at_largest'])}; nothing beyond {whole(curve['rows'][-1])} rows was measured."
    )


def _with_interval(ends: list[float], digits: int = 3) -> str:
    value, low, high = (number(end, digits) for end in ends)
    return f"{value} ({low} to {high})"


def tokens_text(curve: dict[str, Any]) -> str:
    """Whether the sizes trained on equal tokens, which repeats a small set more often."""
    mean = sum(curve["tokens"]) / len(curve["tokens"])
    if curve["equal_tokens"]:
        return f"All sizes trained on about {whole(mean)} tokens, so small sets were repeated more often."
    tokens = listed([whole(count) for count in curve["tokens"]])
    return f"The sizes trained on different numbers of tokens ({tokens}), so rows and training grow together."


def seeds_text(curve: dict[str, Any]) -> str:
    """How many runs a curve rests on."""
    return f"{plural(len(curve['rows']), 'size')}, {plural(sum(curve['seeds']), 'run')}"
