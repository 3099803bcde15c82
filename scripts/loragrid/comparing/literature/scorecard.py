"""Published findings about LoRA against this study's own cells.

Each agrees, disagrees, is left open, or was not tested.

The findings and their rules are data, `config/literature.yaml`; this module only applies the rules.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from loragrid.comparing.diagnosing.causes import differs
from loragrid.comparing.literature.findings import LITERATURE, load_findings
from loragrid.errors import UserError
from loragrid.records.outcomes import Outcome
from loragrid.statistics.paired_statistics import BETTER, UNSURE, WORSE
from loragrid.study.cell_pairs import place_of
from loragrid.study.grid import ARMS

AGREES, DISAGREES, NOT_TESTED = "agrees", "disagrees", "not tested"
# A result with its reason: a code with the numbers that the report's sentence needs.
RuleResult = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class StudyCells:
    """What the rules look at.

    `axes` are the rows on the main target, whose unit is `unit`; `controls` are the rows of bases
    in two precisions.
    """

    axes: pd.DataFrame
    outcomes: list[Outcome]
    controls: pd.DataFrame
    unit: str

    def of_axis(self, axis: str) -> pd.DataFrame:
        """The judged rows of one axis."""
        if self.axes.empty:
            return self.axes
        return self.axes[(self.axes["axis"] == axis) & (self.axes["verdict"] != "")]

    def without_rows(self, axis: str) -> RuleResult:
        """The answer for an axis without a judged row: not varied, or not comparable."""
        if self.axes.empty or axis not in set(self.axes["axis"]):
            return NOT_TESTED, {"code": "not_varied", "axis": axis}
        row = self.axes[self.axes["axis"] == axis].iloc[0]
        if row["verdict"] != "":
            # The axis has other values than those that the finding is about.
            return NOT_TESTED, {"code": "not_varied", "axis": axis}
        names = [name for name in ("reason", "task", "units", "unscored", "token_ratio") if name in row]
        return UNSURE, {"code": "not_compared", "row": {name: row[name] for name in names}}


def scorecard(cells: StudyCells, path: Path = LITERATURE) -> list[dict[str, Any]]:
    """Per finding its key, what this study says about it (`result`), and `why`."""
    rows = []
    for key, finding in load_findings(path).items():
        kind = finding.rule["kind"]
        if kind not in RULES:
            raise UserError(f"{path.name}: rule kind {kind!r} is unknown. Fix: use one of {', '.join(RULES)}")
        result, why = RULES[kind](finding.rule, cells)
        rows.append({"finding": key, "result": result, "why": why})
    return rows


def _row(row: pd.Series) -> dict[str, Any]:
    """What a sentence needs of an axis row."""
    names = ("axis", "value", "base_case_value", "difference", "low", "high", "verdict")
    return {name: row[name] for name in names}


def little_effect(rule: dict[str, Any], cells: StudyCells) -> RuleResult:
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
    if rows["low"].min() >= -margin and rows["high"].max() <= margin:
        return AGREES, {"code": "all_within_margin"} | numbers
    return UNSURE, {"code": "interval_beyond_margin"} | numbers


def larger_is(rule: dict[str, Any], cells: StudyCells) -> RuleResult:
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
        is_larger = _size(row["value"]) > _size(row["base_case_value"])
        expected = rule["direction"] if is_larger else opposite
        supports.append(row["verdict"] == expected)
    why = {"code": "proved_differences", "rows": [_row(row) for _, row in proved.iterrows()]}
    if all(supports):
        return AGREES, why
    return (UNSURE if any(supports) else DISAGREES), why


def value_is(rule: dict[str, Any], cells: StudyCells) -> RuleResult:
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


def same_best_rate(rule: dict[str, Any], cells: StudyCells) -> RuleResult:
    """Whether the learning rate with the lowest held-out loss is the same at every axis value.

    Needs at least two rates at each value, and one alpha at every value: the adapter's factor is
    alpha/rank, and one that does not shrink with the rank changes the best rate.
    """
    axis = rule["axis"]
    runs = [o for o in cells.outcomes if _has_final_loss(o) and not set(o.cell.arm) & set(ARMS)]
    tested = _losses_by_rate(runs, axis)
    if not tested:
        return NOT_TESTED, {"code": "needs_rates_at_each_value", "axis": axis}
    if len({o.cell.settings.alpha for o in runs if set(o.cell.arm) <= {axis, "learning_rate"}}) > 1:
        return NOT_TESTED, {"code": "needs_one_alpha", "axis": axis}
    best_rates, same, clear = [], True, True
    for values in tested:
        best = {value: min(rates, key=rates.get) for value, rates in values.items()}
        same &= len(set(best.values())) == 1
        clear &= all(_is_clear(rates) for rates in values.values())
        best_rates += [{"value": value, "learning_rate": rate} for value, rate in best.items()]
    why = {"code": "best_rates", "axis": axis, "best": best_rates, "clear": clear}
    if not clear:
        return UNSURE, why
    return (AGREES if same else DISAGREES), why


def _losses_by_rate(runs: list[Outcome], axis: str) -> list[dict[Any, dict[float, float]]]:
    """Per combination of the other settings: axis value → learning rate → held-out loss.

    Only combinations with two values or more, each with two rates or more.
    """
    groups: dict[tuple, dict[Any, dict[float, float]]] = {}
    for outcome in runs:
        settings = outcome.cell.settings
        others = (*place_of(outcome.cell.arm, axis, "learning_rate"), settings.seed)
        rates = groups.setdefault(others, {}).setdefault(getattr(settings, axis), {})
        rates[settings.learning_rate] = outcome.record.final_heldout_loss
    several = [{value: rates for value, rates in group.items() if len(rates) > 1} for group in groups.values()]
    return [values for values in several if len(values) > 1]


def precision(rule: dict[str, Any], cells: StudyCells) -> RuleResult:
    """From the untrained bases in two precisions, on tasks that are shares of right answers.

    A loss beyond the margin on one task disagrees; all intervals above minus the margin agree.
    """
    rows = cells.controls
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


def needs(*_: Any) -> RuleResult:
    """A finding that no study of this kind can test; the literature file names the missing runs."""
    return NOT_TESTED, {"code": "needs_other_runs"}


RULES: dict[str, Callable[..., RuleResult]] = {
    "little_effect": little_effect,
    "larger_is": larger_is,
    "value_is": value_is,
    "same_best_rate": same_best_rate,
    "precision": precision,
    "needs": needs,
}


def _has_final_loss(outcome: Outcome) -> bool:
    """A finished run; one that diverged has no final loss."""
    record = outcome.record
    finished = record is not None and record.status == "finished"
    return outcome.cell is not None and finished and record.final_heldout_loss is not None


def _size(text: str) -> float:
    """An axis value as a number; a batch's size is the rows of one update."""
    size = 1.0
    for part in str(text).split("x"):
        size *= float(part)
    return size


def _is_clear(rates: dict[float, float]) -> bool:
    """Whether the best rate's loss is clearly below the second best's."""
    first, second = sorted(rates.values())[:2]
    return differs(second, first)
