"""Finished runs of the grid as completed trials, so that a search after a grid begins with them."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.records.record import RunRecord, find_record
from loragrid.study.identity import canonical
from loragrid.study.search.search_point import GRID_ONLY, cell_at
from loragrid.study.search.search_space import point_in, searched_space
from loragrid.study.settings import Budget
from loragrid.study.study_file import Study

# Runs are cut at whole updates, so equal budgets end at slightly different tokens.
NEARLY_ALL = 0.98
COLUMNS = {"tokens": "tokens", "steps": "step"}


@dataclass(frozen=True, kw_only=True)
class EarlierRun:
    """A finished run at a point of the space, and its held-out loss where a trial ends (nats per token)."""

    run: str
    point: dict[str, Any]
    loss: float


def find_earlier_runs(study: Study, results: Path) -> tuple[list[EarlierRun], str | None]:
    """The finished runs that a search can begin with, sorted by name, and why others cannot.

    A run qualifies if its settings are in the space, and the base case's elsewhere. Its loss is the
    one that it had after a trial's budget. A schedule that falls over the run's own, larger budget
    has not lowered the learning rate yet, so this loss is higher than a trial's, most at high rates.
    """
    at_points = list(_runs_in_space(study, results))
    if not at_points:
        return [], None
    tune, fitting = study.tune, f"{len(at_points)} finished runs fit the space but cannot start the search"
    if tune.task is not None:
        return [], f"{fitting}: they were scored at the end of their own budget"
    rows = at_points[0][0].heldout_rows
    if tune.heldout_rows is not None and tune.heldout_rows < rows:
        return [], f"{fitting}: their loss is that of all {rows} held-out rows, a trial's of {tune.heldout_rows}"
    found = []
    for record, point in at_points:
        losses = results / "train" / record.run / record.losses_file
        loss = loss_after(_heldout_rows(losses, COLUMNS[tune.budget.unit]), tune.budget)
        if loss is not None:
            found.append(EarlierRun(run=record.run, point=point, loss=loss))
    if not found:
        return [], f"{fitting}: none was measured before and after {tune.budget.amount} {tune.budget.unit}"
    return found, None


def _runs_in_space(study: Study, results: Path) -> list[tuple[RunRecord, dict[str, Any]]]:
    """The finished runs at points of the space, with their points."""
    space, found = searched_space(study.tune), []
    for path in sorted((results / "train").glob("*/record.json")):
        record, _ = find_record(path, RunRecord)
        if record is None or record.status != "finished":
            continue
        try:
            point = point_in(space, record.settings)
            if point is not None and _compared(cell_at(study, point).identity) == _compared(record.settings):
                found.append((record, point))
        except (KeyError, TypeError, UserError):
            # A record of settings that the study does not have any more.
            continue
    return found


def _compared(identity: dict[str, Any]) -> Any:
    """The settings that a run and a trial must share."""
    return canonical({name: value for name, value in identity.items() if name not in GRID_ONLY})


def _heldout_rows(path: Path, column: str) -> list[tuple[float, float]]:
    """(position, loss) of a run's measurements after its first update, in their order."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "heldout" and int(row["step"]) > 0]
    return [(float(row[column]), float(row["loss"])) for row in rows if math.isfinite(float(row["loss"]))]


def loss_after(measured: Sequence[tuple[float, float]], budget: Budget) -> float | None:
    """The loss after a budget, by linear interpolation between two measurements; None if not between two.

    The measurement before the first update is left out: the loss falls so fast after it that a
    straight line from there means nothing.
    """
    amount, before = budget.amount, None
    for position, loss in measured:
        if position >= amount:
            if position == amount:
                return loss
            if before is None:
                return None
            share = (amount - before[0]) / (position - before[0])
            return before[1] + share * (loss - before[1])
        before = position, loss
    if before is not None and before[0] >= NEARLY_ALL * amount:
        return before[1]
    return None
