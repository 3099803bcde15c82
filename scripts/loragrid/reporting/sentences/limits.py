"""The limits of a comparison, as sentences: rows without a test, what is not compared, caveats."""

from collections.abc import Mapping
from typing import Any

from loragrid.formatting import listed, number, plain_name, plural, visible, whole
from loragrid.setting_texts import axis_name, axis_value

# What runs can differ in beside the axes: code of compare → words.
DIFFERENT = {
    "library_versions": "library versions",
    "machines": "machines",
    "backends": "backends",
    "precisions": "precisions of weights or training",
    "code_versions": "code versions",
}


def reason_text(row: Mapping[str, Any]) -> str:
    """Why a row of comparisons.csv or axes.csv has no test, as a clause; empty if it has one."""
    reason = row.get("reason")
    if not isinstance(reason, str):
        return ""
    if reason == "no_score":
        return f"{_who(row)} has no score on {plain_name(row['task'])}"
    if reason == "unequal_training_tokens":
        return f"its runs trained on {row['token_ratio']:.3g} times the base case’s tokens"
    if reason == "loss_on_other_tokens":
        return "its losses are over different tokens (another tokenizer or chat template)"
    independent = plural(int(row["units"]), "independent item")
    if reason == "too_few_clusters":
        independent = plural(int(row["units"]), "independent cluster of items", "independent clusters of items")
    return f"only {independent} in common, too few to prove any difference"


def _who(row: Mapping[str, Any]) -> str:
    """The subject without a score: of a setting's row its base or one of its runs, else by name."""
    unscored = row["unscored"]
    if "base" not in row:
        return visible(unscored, 120)
    return "the base" if unscored == row["base"] else "the run"


def not_comparable_sentence(found: dict[str, Any]) -> str:
    """One thing that the page does not compare."""
    if found["code"] == "training_loss_over_unequal_updates":
        return (
            "Mean or final training loss of runs with different numbers of updates: "
            "the mean covers a different stretch of each run."
        )
    if found["code"] == "loss_across_tokenizers":
        models = listed([visible(model) for model in found["models"]])
        text = f"Losses across {models}: their tokenizers or templates differ, so a token is not the same unit in each."
        if "rows" not in found:
            return text
        rows = f"all {whole(found['rows'])} held-out rows"
        if found["rows"] < found["rows_total"]:
            rows = f"the {whole(found['rows'])} of {whole(found['rows_total'])} held-out rows that all keep whole"
        return f"{text} The model axis compares them in bits per byte of the replies, on {rows}."
    axis, ratio = found["axis"], number(found["token_ratio"], 2)
    value = f"{axis_name(axis).capitalize()} {axis_value(axis, found['value'])}"
    return (
        f"{value} with the base case: its runs saw {ratio} times the base case’s tokens. "
        "The table of runs has the held-out loss of all runs at the same number of tokens."
    )


def caveat_sentence(found: dict[str, Any]) -> str:
    """One thing that the page compares although more than the setting differs."""
    if found["code"] == "alpha_moves_with_rank":
        return "Rank: alpha changes with it (alpha/rank stays the same), so this axis is rank and alpha together."
    if found["code"] == "alpha_fixed_over_ranks":
        return "Rank: alpha is fixed, so this axis is rank and a factor alpha/rank that falls as rank grows."
    if found["code"] == "alpha_and_factor_over_ranks":
        return "Rank: alpha and the factor alpha/rank change with it, so this axis is all three together."
    different = f"different {DIFFERENT[found['field']]} ({found['distinct']} in all)"
    return f"Runs from {different}: part of a difference between them may come from that."
