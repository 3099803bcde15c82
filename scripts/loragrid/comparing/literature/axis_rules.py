"""Rules that look at the differences of one axis, or of bases in two precisions."""

from typing import Any

import pandas as pd

from loragrid.comparing.literature.study_cells import (
    AGREES,
    DISAGREES,
    NOT_TESTED,
    RuleResult,
    StudyCells,
    needs_second_seed,
)
from loragrid.statistics.paired_statistics import BETTER, UNSURE, WORSE

Rule = dict[str, Any]


def _row(row: pd.Series) -> dict[str, Any]:
    """What a sentence needs of an axis row."""
    names = ("axis", "value", "base_case_value", "difference", "low", "high", "verdict")
    return {name: row[name] for name in names}


def little_effect(rule: Rule, cells: StudyCells) -> RuleResult:
    """An equivalence test by intervals, after Schuirmann's two one-sided tests.

    Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15:657.

    Agrees when all intervals are within the margin on both sides, disagrees when one is wholly
    beyond it. Verdicts do not matter: a proved difference smaller than the margin is little, and an
    unproved one may still be large.
    """
    rows = cells.of_axis(rule["axis"])
    if rows.empty:
        return cells.without_rows(rule["axis"])
    if cells.unit != "share":
        return UNSURE, {"code": "target_not_a_share"}
    margin = rule["margin"]
    beyond = rows[(rows["low"] > margin) | (rows["high"] < -margin)]
    if len(beyond):
        return DISAGREES, {"code": "differences", "rows": [_row(row) for _, row in beyond.iterrows()]}
    widest = rows.loc[rows[["low", "high"]].abs().max(axis=1).idxmax()]
    numbers = {"margin": margin, "row": _row(widest)}
    if rows["low"].min() < -margin or rows["high"].max() > margin:
        return UNSURE, {"code": "interval_beyond_margin"} | numbers
    # A value under one seed has no interval that counts.
    if cells.has_one_seed(rule["axis"]):
        return needs_second_seed(rule["axis"])
    return AGREES, {"code": "all_within_margin"} | numbers


def larger_is(rule: Rule, cells: StudyCells) -> RuleResult:
    """Agrees when at least one proved difference goes the finding's way and none the other way."""
    rows = cells.of_axis(rule["axis"])
    if rows.empty:
        return cells.without_rows(rule["axis"])
    # A value below the base case's supports the finding when its verdict is the opposite one.
    opposite = WORSE if rule["direction"] == BETTER else BETTER
    proved = rows[rows["verdict"] != UNSURE]
    if proved.empty:
        return UNSURE, {"code": "differences", "rows": [_row(row) for _, row in rows.iterrows()]}
    supports = []
    for _, row in proved.iterrows():
        is_larger = value_size(row["value"]) > value_size(row["base_case_value"])
        expected = rule["direction"] if is_larger else opposite
        supports.append(row["verdict"] == expected)
    why = {"code": "proved_differences", "rows": [_row(row) for _, row in proved.iterrows()]}
    if all(supports):
        return AGREES, why
    return (UNSURE if any(supports) else DISAGREES), why


def value_size(text: str) -> float:
    """An axis value as a number; a batch's size is the rows of one update."""
    size = 1.0
    for part in str(text).split("x"):
        size *= float(part)
    return size


def value_is(rule: Rule, cells: StudyCells) -> RuleResult:
    """Agrees when one named value is proved worse (or better) than the other, disagrees when the other way round."""
    axis, values = rule["axis"], {rule["value"], rule["than"]}
    rows = cells.of_axis(axis)
    if not rows.empty:
        rows = rows[[{row["value"], row["base_case_value"]} == values for _, row in rows.iterrows()]]
    if rows.empty:
        return cells.without_rows(axis)
    row = rows.iloc[0]
    if row["verdict"] == UNSURE:
        return UNSURE, {"code": "differences", "rows": [_row(row)]}
    opposite = WORSE if rule["direction"] == BETTER else BETTER
    expected = rule["direction"] if row["value"] == rule["value"] else opposite
    why = {"code": "proved_differences", "rows": [_row(row)]}
    return (AGREES if row["verdict"] == expected else DISAGREES), why


def precision(rule: Rule, cells: StudyCells) -> RuleResult:
    """From the untrained bases in two precisions, on tasks that are shares of right answers.

    A loss beyond the margin on one task disagrees; all intervals above minus the margin agree. Bases
    have no seed, so nothing is missing there.
    """
    rows = cells.judged.controls
    if not rows.empty:
        rows = rows[(rows["unit"] == "share") & (rows["verdict"] != "")]
    if rows.empty:
        return NOT_TESTED, {"code": "needs_two_precisions"}
    margin = rule["margin"]
    lost = rows[rows["high"] < -margin]
    if len(lost):
        losses = [{"task": row["task"], "difference": row["difference"]} for _, row in lost.iterrows()]
        return DISAGREES, {"code": "precision_lost", "precisions": sorted(set(lost["precision"])), "losses": losses}
    if (rows["low"] >= -margin).all():
        return AGREES, {"code": "precision_kept", "margin": margin, "tasks": len(rows)}
    worst = rows.loc[rows["low"].idxmin()]
    interval = {name: worst[name] for name in ("task", "low", "high")}
    return UNSURE, {"code": "precision_beyond_margin", "margin": margin} | interval
