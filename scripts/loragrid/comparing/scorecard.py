"""Published findings about LoRA against this study's own cells: agrees, disagrees, can't tell, not tested.

The findings and their rules are data, `config/literature.yaml`; here is only how a rule is applied.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from loragrid.comparing.axis_effects import COMPARED_AXES
from loragrid.comparing.causes import differs
from loragrid.errors import UserError
from loragrid.formatting import AXIS_NAMES, axis_value, between, change, decimals, listed, plain_name, plural, setting
from loragrid.paths import ROOT
from loragrid.records.outcomes import Outcome

LITERATURE = ROOT / "config" / "literature.yaml"
NOT_TESTED, UNSURE, AGREES, DISAGREES = "not tested", "can't tell", "agrees", "disagrees"


@dataclass(frozen=True)
class Cells:
    """What the rules look at: the axes' rows on the main target with its `unit`, all outcomes, the rows of bases in two
    precisions, and what the report calls each axis."""

    axes: pd.DataFrame
    outcomes: list[Outcome]
    controls: pd.DataFrame
    unit: str
    names: dict[str, str]

    def of_axis(self, axis: str) -> pd.DataFrame:
        """The judged rows of one axis."""
        rows = self.axes
        return rows[(rows["axis"] == axis) & (rows["verdict"] != "")] if not rows.empty else rows

    def not_tested(self, axis: str) -> tuple[str, str]:
        """The answer where an axis has no judged row: it was not varied, or why its values could not be compared."""
        rows = self.axes[self.axes["axis"] == axis] if not self.axes.empty else self.axes
        if rows.empty:
            return NOT_TESTED, f"the {AXIS_NAMES[axis]} was not varied, or could not be compared"
        return UNSURE, str(rows["reason"].iloc[0])

    def words(self, row: pd.Series) -> str:
        """A row in words."""
        verdict = "can’t tell" if row["verdict"] == UNSURE else row["verdict"]
        value, default = (axis_value(row["axis"], row[key]) for key in ("value", "base_case_value"))
        amount = change(row["difference"], self.unit, words=True, places=decimals(row["low"], row["high"]))
        return f"{self.names[row['axis']]} {value} against {default}: {amount}, {verdict}"


def scorecard(
    axes: pd.DataFrame,
    outcomes: list[Outcome],
    controls: pd.DataFrame,
    target: str | None,
    unit: str,
    names: dict[str, str],
    path: Path = LITERATURE,
) -> list[dict[str, Any]]:
    """Each finding with its sources, what this study says to it (`result`), and why."""
    literature = yaml.safe_load(path.read_text(encoding="utf-8"))
    cells = Cells(axes[axes["task"] == target] if not axes.empty else axes, outcomes, controls, unit, names)
    rows = []
    for finding in literature["findings"]:
        rule = finding["rule"]
        if rule["kind"] not in RULES:
            raise UserError(f"{path.name}: rule kind {rule['kind']!r} is unknown: take one of {', '.join(RULES)}")
        result, why = RULES[rule["kind"]](rule, cells)
        sources = [literature["sources"][key] for key in finding["sources"]]
        rows.append({"claim": finding["claim"], "sources": sources, "result": result, "why": why})
    return rows


def little_effect(rule: dict, cells: Cells) -> tuple[str, str]:
    """An equivalence test by intervals: agrees only when all lie within the margin on both sides, disagrees only when one
    lies wholly beyond it. A proved difference smaller than the margin is little, and no proof of one is no proof of little."""
    rows = cells.of_axis(rule["axis"])
    if rows.empty:
        return cells.not_tested(rule["axis"])
    if cells.unit != "share":
        return UNSURE, "the main target is no share of right answers, and the margin is in points"
    margin = rule["margin"]
    beyond = rows[(rows["low"] > margin) | (rows["high"] < -margin)]
    if len(beyond):
        return DISAGREES, listed([cells.words(row) for _, row in beyond.iterrows()])
    widest = rows.loc[rows[["low", "high"]].abs().max(axis=1).idxmax()]
    interval = f"interval {between(widest['low'], widest['high'], cells.unit)} at {cells.names[rule['axis']]} {widest['value']}"
    if rows["low"].min() >= -margin and rows["high"].max() <= margin:
        return AGREES, f"all differences lie within {margin * 100:g} points ({interval})"
    return UNSURE, f"the interval reaches beyond ±{margin * 100:g} points ({interval})"


def larger_is(rule: dict, cells: Cells) -> tuple[str, str]:
    """Agrees when at least one proved difference goes the finding's way and none the other."""
    rows = cells.of_axis(rule["axis"])
    if rows.empty:
        return cells.not_tested(rule["axis"])
    expected = {True: rule["direction"], False: "worse" if rule["direction"] == "better" else "better"}
    proved = rows[rows["verdict"] != UNSURE]
    if proved.empty:
        return UNSURE, listed([cells.words(row) for _, row in rows.iterrows()])
    right = [
        row["verdict"] == expected[_size(row["value"]) > _size(row["base_case_value"])] for _, row in proved.iterrows()
    ]
    words = listed([cells.words(row) for _, row in proved.iterrows()])
    beside = f" ({rule['beside']})" if "beside" in rule else ""
    return (AGREES if all(right) else DISAGREES if not any(right) else UNSURE), words + beside


def same_best_rate(rule: dict, cells: Cells) -> tuple[str, str]:
    """Per value of the axis the learning rate with the least held-out loss, where at least two rates were trained. The finding
    holds for one alpha at every value: the factor on the adapters is alpha/rank, and one that does not shrink with the rank
    moves the best rate."""
    axis = rule["axis"]
    groups: dict[tuple, dict[Any, dict[float, float]]] = {}
    alphas = set()
    for outcome in cells.outcomes:
        if not _is_finished(outcome) or "search" in outcome.cell.departs:
            continue
        alphas.add(outcome.cell.identity["training"]["alpha"])
        others = tuple(
            str(getattr(outcome.cell, name)) for name in (*COMPARED_AXES, "seed") if name not in (axis, "learning_rate")
        )
        rates = groups.setdefault(others, {}).setdefault(getattr(outcome.cell, axis), {})
        rates[outcome.cell.learning_rate] = outcome.record.final_heldout_loss
    tested = [{v: r for v, r in g.items() if len(r) > 1} for g in groups.values()]
    tested = [values for values in tested if len(values) > 1]
    if not tested:
        return NOT_TESTED, f"it takes several learning rates at several values of {AXIS_NAMES[axis]} (a factorial grid)"
    if len(alphas) > 1:
        return NOT_TESTED, f"it takes one alpha at every {AXIS_NAMES[axis]}, and here alpha moves with it"
    words, same, clear = [], True, True
    for values in tested:
        best = {value: min(rates, key=rates.get) for value, rates in values.items()}
        same &= len(set(best.values())) == 1
        clear &= all(_is_clear(rates) for rates in values.values())
        words += [f"{setting(rate)} at {AXIS_NAMES[axis]} {value}" for value, rate in best.items()]
    why = f"least held-out loss: {listed(words)}"
    return (AGREES if same else DISAGREES) if clear else UNSURE, why if clear else f"{why}; the runners-up are too near"


def precision(rule: dict, cells: Cells) -> tuple[str, str]:
    """From the untrained bases in two precisions, on tasks that are shares of right answers: a loss beyond the margin on one
    disagrees, all intervals above minus the margin agree."""
    rows = cells.controls
    rows = rows[(rows["unit"] == "share") & (rows["verdict"] != "")] if not rows.empty else rows
    if rows.empty:
        return NOT_TESTED, "it takes one model in two precisions, scored on shares of right answers"
    margin = rule["margin"]
    lost = rows[rows["high"] < -margin]
    if len(lost):
        parts = [f"{plain_name(r['task'])} {change(r['difference'], 'share', words=True)}" for _, r in lost.iterrows()]
        return DISAGREES, f"in {listed(sorted(set(lost['precision'])))}: {listed(parts)}"
    if (rows["low"] >= -margin).all():
        return AGREES, f"no loss of more than {margin * 100:g} points on any of {plural(len(rows), 'task')}"
    worst = rows.loc[rows["low"].idxmin()]
    interval = f"{plain_name(worst['task'])} {between(worst['low'], worst['high'], 'share')}"
    return UNSURE, f"the interval reaches beyond −{margin * 100:g} points ({interval})"


def needs(rule: dict, *_: Any) -> tuple[str, str]:
    """A finding that this study has no cells for."""
    return NOT_TESTED, f"it takes {rule['missing']}"


RULES: dict[str, Callable[..., tuple[str, str]]] = {
    "little_effect": little_effect,
    "larger_is": larger_is,
    "same_best_rate": same_best_rate,
    "precision": precision,
    "needs": needs,
}


def _is_finished(outcome: Outcome) -> bool:
    """A run with a final loss: one that diverged has none."""
    record = outcome.record
    finished = record is not None and record.status == "finished"
    return outcome.cell is not None and finished and record.final_heldout_loss is not None


def _size(text: str) -> float:
    """An axis value as a number; a batch is the rows of one update."""
    size = 1.0
    for part in str(text).split("×"):
        size *= float(part)
    return size


def _is_clear(rates: dict[float, float]) -> bool:
    first, second = sorted(rates.values())[:2]
    return differs(second, first)
