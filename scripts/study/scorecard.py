"""Published findings about LoRA against this study's own cells: agrees, disagrees, can't tell, not tested.

The findings and their rules are data, `config/literature.yaml`; here is only how a rule is applied.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from study.comparisons import AXES
from study.diagnosis import differs
from study.errors import UserError
from study.outcomes import Outcome
from study.study_file import ROOT
from study.wording import AXIS_NAMES, axis_value, between, change, listed, plural, points, setting

LITERATURE = ROOT / "config" / "literature.yaml"
NOT_TESTED, UNSURE, AGREES, DISAGREES = "not tested", "can't tell", "agrees", "disagrees"


def scorecard(
    axes: pd.DataFrame,
    outcomes: list[Outcome],
    controls: list[dict[str, Any]],
    target: str | None,
    unit: str,
    path: Path = LITERATURE,
) -> list[dict[str, Any]]:
    """Each finding with its sources, what this study says to it (`result`), and why."""
    literature = yaml.safe_load(path.read_text(encoding="utf-8"))
    on_target = axes[(axes["task"] == target) & (axes["verdict"] != "")] if not axes.empty else axes
    rows = []
    for finding in literature["findings"]:
        rule = finding["rule"]
        if rule["kind"] not in RULES:
            raise UserError(f"{path.name}: rule kind {rule['kind']!r} is unknown: take one of {', '.join(RULES)}")
        result, why = RULES[rule["kind"]](rule, on_target, outcomes, controls, unit)
        sources = [literature["sources"][key] for key in finding["sources"]]
        rows.append({"claim": finding["claim"], "sources": sources, "result": result, "why": why})
    return rows


def little_effect(rule: dict, axes: pd.DataFrame, _outcomes: list, _controls: list, unit: str) -> tuple[str, str]:
    """Agrees only when every interval lies within the margin: no proof of a difference is no proof of equality."""
    rows = _of_axis(axes, rule["axis"])
    if rows.empty:
        return NOT_TESTED, f"the {AXIS_NAMES[rule['axis']]} was not varied, or could not be compared"
    moved = rows[rows["verdict"] != UNSURE]
    if len(moved):
        return DISAGREES, listed([_words(row, unit) for _, row in moved.iterrows()])
    margin = rule["margin"]
    widest = rows.loc[(rows["high"] - rows["low"]).idxmax()]
    interval = f"interval {between(widest['low'], widest['high'], unit)} at {widest['value']}"
    if unit == "share" and rows["low"].min() >= -margin and rows["high"].max() <= margin:
        return AGREES, f"all differences lie within {margin * 100:g} points ({interval})"
    wanted = f"{margin * 100:g}{points(margin, unit)}" if unit == "share" else "the margin"
    return UNSURE, f"no difference proved, and none under {wanted} excluded ({interval})"


def larger_is(rule: dict, axes: pd.DataFrame, _outcomes: list, _controls: list, unit: str) -> tuple[str, str]:
    """Agrees when at least one proved difference goes the finding's way and none the other."""
    rows = _of_axis(axes, rule["axis"])
    if rows.empty:
        return NOT_TESTED, f"the {AXIS_NAMES[rule['axis']]} was not varied, or could not be compared"
    unequal = rows[(rows["token_ratio"] - 1).abs() > 0.1]
    if len(unequal):
        return UNSURE, "the runs did not see the same number of tokens"
    expected = {True: rule["direction"], False: "worse" if rule["direction"] == "better" else "better"}
    proved = rows[rows["verdict"] != UNSURE]
    if proved.empty:
        return UNSURE, listed([_words(row, unit) for _, row in rows.iterrows()])
    right = [
        row["verdict"] == expected[_size(row["value"]) > _size(row["base_case_value"])] for _, row in proved.iterrows()
    ]
    words = listed([_words(row, unit) for _, row in proved.iterrows()])
    return (AGREES if all(right) else DISAGREES if not any(right) else UNSURE), words


def same_best_rate(
    rule: dict, _axes: pd.DataFrame, outcomes: list[Outcome], _controls: list, _unit: str
) -> tuple[str, str]:
    """Per value of the axis the learning rate with the least held-out loss, where at least two rates were trained."""
    axis = rule["axis"]
    groups: dict[tuple, dict[Any, dict[float, float]]] = {}
    for outcome in outcomes:
        if outcome.cell is None or outcome.record is None or outcome.record.final_heldout_loss is None:
            continue
        others = tuple(
            str(getattr(outcome.cell, name)) for name in (*AXES, "seed") if name not in (axis, "learning_rate")
        )
        rates = groups.setdefault(others, {}).setdefault(getattr(outcome.cell, axis), {})
        rates[outcome.cell.learning_rate] = outcome.record.final_heldout_loss
    tested = [{v: r for v, r in g.items() if len(r) > 1} for g in groups.values()]
    tested = [values for values in tested if len(values) > 1]
    if not tested:
        return NOT_TESTED, f"it takes several learning rates at several values of {AXIS_NAMES[axis]} (a factorial grid)"
    words, same, clear = [], True, True
    for values in tested:
        best = {value: min(rates, key=rates.get) for value, rates in values.items()}
        same &= len(set(best.values())) == 1
        clear &= all(_is_clear(rates) for rates in values.values())
        words += [f"{setting(rate)} at {AXIS_NAMES[axis]} {value}" for value, rate in best.items()]
    why = f"least held-out loss: {listed(words)}"
    return (AGREES if same else DISAGREES) if clear else UNSURE, why if clear else f"{why}; the runners-up are too near"


def precision(
    rule: dict, _axes: pd.DataFrame, _outcomes: list, controls: list[dict[str, Any]], _unit: str
) -> tuple[str, str]:
    """From the untrained bases in two precisions."""
    if not controls:
        return NOT_TESTED, "it takes one model in two precisions"
    worse = [control["text"] for control in controls if control["worse"]]
    if worse:
        return DISAGREES, listed(worse)
    if all(c["low_bound"] >= -rule["margin"] and c["high_bound"] <= rule["margin"] for c in controls):
        return AGREES, f"all {plural(len(controls), 'task')} within {rule['margin'] * 100:g} points"
    return UNSURE, "no loss proved, and none within the margin excluded"


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


def _of_axis(axes: pd.DataFrame, axis: str) -> pd.DataFrame:
    return axes[axes["axis"] == axis] if not axes.empty else axes


def _words(row: pd.Series, unit: str) -> str:
    verdict = "can’t tell" if row["verdict"] == UNSURE else row["verdict"]
    value, default = (axis_value(row["axis"], row[key]) for key in ("value", "base_case_value"))
    return f"{value} against {default}: {change(row['difference'], unit, words=True)}, {verdict}"


def _size(text: str) -> float:
    """An axis value as a number; a batch is the rows of one update."""
    size = 1.0
    for part in str(text).split("×"):
        size *= float(part)
    return size


def _is_clear(rates: dict[float, float]) -> bool:
    first, second = sorted(rates.values())[:2]
    return differs(second, first)
