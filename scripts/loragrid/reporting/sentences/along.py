"""Sentences on the course of a run: where the target stops improving, where retention begins to fall."""

from typing import Any

from loragrid.formatting import between, change, change_beside, number, plain_name, whole
from loragrid.reporting.compared_study import ComparedStudy


def along_sentence(row: dict[str, Any], compared: ComparedStudy) -> str:
    """One sentence on a setting, or on its only run: the target's path and retention's."""
    return f"{_target(row, compared)}; {_retention(row)}."


def _target(row: dict[str, Any], compared: ComparedStudy) -> str:
    path, unit, name = row["target"], compared.unit, plain_name(compared.target)
    if path["code"] == "no_gain":
        return f"no gain on {name} is proved at any share"
    if path["code"] == "improving":
        since = f"since {_share(path['share'], row)}" if path["share"] else "from the start"
        return f"{name} still improved at the end: {_amount(path['gained'], unit)} {since}"
    if path["code"] == "turned":
        higher = "higher" if compared.higher_is_better else "lower"
        return (
            f"{name} was {higher} at {_share(path['share'], row)} than at the end: {_amount(path['lost'], unit)} since"
        )
    if path["code"] == "stopped":
        margin = f"{path['margin'] * 100:g} points" if unit == "share" else number(path["margin"], 2)
        most = change(path["most"], unit, words=True, places=1)
        return (
            f"{name} stopped improving by {_share(path['share'], row)}: no later interval reaches a further gain of "
            f"{margin} (the highest ends at {most})"
        )
    if path["last"] is None:
        return f"can’t tell where {name} stops improving"
    since = f"from {_share(path['share'], row)} to the end" if path["share"] else "from the base to the end"
    return f"can’t tell where {name} stops improving: {since} {_amount(path['last'], unit)}"


def _retention(row: dict[str, Any]) -> str:
    path = row["retention"]
    if path["code"] == "not_measured":
        return "retention was not measured"
    if path["code"] == "falls":
        before = f"; at {100 * path['before']:.3g}% no fall is proved" if path["before"] else ""
        return f"retention has fallen by {_share(path['share'], row)}: {_amount(path['lost'], 'share')}{before}"
    if path["code"] == "kept":
        return f"retention stays within {path['margin'] * 100:g} points of the base at every share"
    low = change(path["lowest"], "share", words=True, places=1)
    return f"can’t tell whether retention falls (its intervals reach down to {low})"


def _share(share: float, row: dict[str, Any]) -> str:
    """25% of the budget (30 000 tokens), or the end."""
    if share == 1:
        return "the end"
    tokens = [moment["tokens"] for moment in row["moments"] if moment["share"] == share]
    counted = f" ({whole(tokens[0])} tokens)" if tokens else ""
    return f"{100 * share:.3g}% of the budget{counted}"


def _amount(ends: list[float], unit: str) -> str:
    value, low, high = ends
    return f"{change_beside(value, low, high, unit)} ({between(low, high, unit)})"
