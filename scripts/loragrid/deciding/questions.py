"""The questions that a compared study leaves open.

A question is closed when a difference between settings is proved, or when its interval is within the
margin: then it is too small to matter. Two adapters that differ close nothing, since another seed may
take it back.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loragrid.comparing.contrasts import SETTING
from loragrid.comparing.designs.axis_pairs import axis_values
from loragrid.comparing.diagnosing.loss_margins import LossMargin
from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.comparing.trade_off import LOSS_NOT_EXCLUDED, ONE_SEED
from loragrid.deciding.compared_results import ArmKey, ComparedResults, key_of
from loragrid.deciding.study_changes import NOTHING, Change
from loragrid.statistics.paired_statistics import BETTER, UNSURE, WORSE

# Kinds of questions: does a value differ from the base case's, did a setting improve on its base, did it
# keep what its base could do, is a value beyond the tried ones better, would longer training help?
AXIS, GAIN, RETENTION, BEYOND, LONGER = "axis", "gain", "retention", "beyond", "longer"


@dataclass(frozen=True)
class Side:
    """A trained arm in a comparison, and the size of its coefficient."""

    arm: ArmKey
    weight: float


@dataclass(frozen=True)
class Question:
    """One open question on one measure.

    `name` identifies it; `sides` are the trained arms that it compares; `margin` is the smallest
    difference worth knowing, None if that is unknown. `row` is its row in compare's tables, None for
    a value that was not trained yet: `needs` adds it to the study. `about` names what it asks: axis
    and value, or the run. `expected` is its difference by what is known of others.
    """

    name: str
    kind: str
    measure: str
    sides: tuple[Side, ...]
    margin: float | None
    row: Mapping[str, Any] | None
    about: Mapping[str, Any]
    needs: Change = NOTHING
    expected: float = 0.0


@dataclass(frozen=True)
class Unanswerable:
    """A comparison without a test, which no seed or item would close; `reason` is compare's code."""

    kind: str
    about: Mapping[str, Any]
    reason: str


def is_decided(row: Mapping[str, Any], margin: float | None) -> bool:
    """Whether a row about settings shows a difference, or that it is within the margin."""
    if row["level"] != SETTING:
        return False
    within = margin is not None and -margin < row["low"] and row["high"] < margin
    return row["verdict"] in (BETTER, WORSE) or within


def margin_of(compared: ComparedResults, measure: str) -> float | None:
    """The smallest difference worth knowing; None for scores that are neither shares nor losses.

    The study's margin for shares, and for losses a share of what there was to win.
    """
    if measure == POOLED_RETENTION or compared.summary["tasks"][measure]["unit"] == "share":
        return compared.terms["retention_margin"]
    if compared.summary["tasks"][measure]["metric"] != "loss":
        return None
    scores = compared.scores[measure]
    runs = [outcome for outcome in compared.outcomes if outcome.kind == "run" and outcome.subject in scores]
    won = [scores[run.base] - scores[run.subject] for run in runs if run.base in scores]
    lowest = min((scores[run.subject] for run in runs), default=0.0)
    return LossMargin(max(won, default=None)).in_run(lowest)["nats"]


def axis_sides(compared: ComparedResults) -> dict[tuple[str, str], tuple[Side, ...]]:
    """(axis, value) → the trained arms of its comparison with the base case's value."""
    found = {}
    for value in axis_values(list(compared.outcomes), compared.study):
        sides = [
            Side(key_of(members[0]), 1 / len(value.pairs))
            for pair in value.pairs
            for members in pair
            if members[0].kind == "run"
        ]
        found[value.axis, value.value] = tuple(sides)
    return found


def open_questions(compared: ComparedResults) -> tuple[list[Question], list[Unanswerable]]:
    """The questions about values and models that were compared, and those without a test."""
    questions: list[Question] = []
    untested: list[Unanswerable] = []
    for kind, row, sides, about in _asked(compared):
        if not row["verdict"]:
            untested.append(Unanswerable(kind, about, str(row["reason"])))
            continue
        margin = margin_of(compared, row["task"])
        if kind == RETENTION or not is_decided(row, margin):
            name = ":".join((kind, *map(str, about.values())))
            questions.append(Question(name, kind, row["task"], sides, margin, row, about))
    return questions, untested


def _asked(compared: ComparedResults) -> Iterable[tuple[str, dict[str, Any], tuple[Side, ...], dict[str, Any]]]:
    """Every comparison that the page asks about: kind, row, sides and subject."""
    sides = axis_sides(compared)
    for row in compared.axes.to_dict("records"):
        if row["task"] == compared.target:
            yield AXIS, row, sides[row["axis"], row["value"]], {"axis": row["axis"], "value": row["value"]}
    retention = _open_retention(compared)
    for row in compared.comparisons.to_dict("records"):
        arm = compared.arm_of(row["run"])
        if arm is None:
            # Nobody can train an adopted adapter again.
            continue
        if row["task"] == compared.target and {axis for axis, _ in arm} <= {"model"}:
            yield GAIN, row, (Side(arm, 1.0),), {"run": row["run"]}
        if row["task"] == POOLED_RETENTION and row["run"] in retention:
            yield RETENTION, row, (Side(arm, 1.0),), {"run": row["run"]}


def _open_retention(compared: ComparedResults) -> set[str]:
    """The settings that are not shipped because a loss beyond the margin is not excluded, or for their one seed."""
    codes = (LOSS_NOT_EXCLUDED, ONE_SEED)
    rows = compared.summary["trade_offs"]
    return {row["run"] for row in rows if row["ship"] == UNSURE and row["ship_reason"]["code"] in codes}


def known(value: Any) -> float | None:
    """A number of a table; None for an empty cell."""
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else float(value)
