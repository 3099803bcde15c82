"""What the options are worked out from: compare's tables, the arms of the study and the scores of their runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.comparing.study_results import SCHEMA
from loragrid.errors import UserError
from loragrid.records.outcomes import Outcome, collect
from loragrid.records.seal import check_sealed
from loragrid.runtime.atomic_files import read_json
from loragrid.study.cell_pairs import place_of
from loragrid.study.grid import arms as grid_arms
from loragrid.study.study_file import Study

# What an arm departs in, as texts: equal for its runs under all seeds.
ArmKey = tuple[tuple[str, str], ...]
BASE_CASE: ArmKey = ()


@dataclass(frozen=True)
class StudyArm:
    """One setting: its scored runs (subjects), and the seeds of all its cells, finished or not.

    `departs` is what departs from the base case as in the study file; None for an arm that the file
    does not hold, such as a search's winner, which therefore cannot get more seeds.
    """

    key: ArmKey
    departs: Mapping[str, Any] | None
    runs: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class ComparedResults:
    """A compared study. `summary` is compare.json; `scores` maps a measure to its runs' scores."""

    study: Study
    outcomes: Sequence[Outcome]
    summary: Mapping[str, Any]
    comparisons: pd.DataFrame
    axes: pd.DataFrame
    scores: Mapping[str, Mapping[str, float]]

    @property
    def target(self) -> str | None:
        """The main target task."""
        return self.summary["primary_target"]

    @property
    def terms(self) -> Mapping[str, Any]:
        """The study file's `compare` section as compare used it."""
        return self.summary["terms"]

    @cached_property
    def arms(self) -> dict[ArmKey, StudyArm]:
        """The trained settings by what they depart in, in the order of the grid."""
        return study_arms(self.study, self.outcomes)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """All rows of both tables, those of axes first."""
        return [*self.axes.to_dict("records"), *self.comparisons.to_dict("records")]

    def tasks_of(self, measure: str) -> list[Mapping[str, Any]]:
        """What compare.json says of the tasks that a measure is made of."""
        tasks = self.summary["tasks"]
        return pooled_tasks(tasks) if measure == POOLED_RETENTION else [tasks[measure]]

    def arm_of(self, run: str) -> ArmKey | None:
        """The arm of a run; None for a subject that was not trained here."""
        return self._arm_of.get(run)

    def scores_of(self, measure: str, arm: ArmKey) -> np.ndarray:
        """The scores (k,) of an arm's runs; none for an arm that has no run yet."""
        scores, known = self.scores[measure], self.arms.get(arm)
        return np.array([scores[run] for run in known.runs if run in scores] if known else [])

    @cached_property
    def _arm_of(self) -> dict[str, ArmKey]:
        return {o.subject: key_of(o) for o in self.outcomes if o.kind == "run"}


def key_of(run: Outcome) -> ArmKey:
    """The arm that a run belongs to."""
    return place_of(run.cell.arm)


def study_arms(study: Study, outcomes: Sequence[Outcome]) -> dict[ArmKey, StudyArm]:
    """Every arm with a cell or a run of its own."""
    departs = {place_of(arm.label or arm.departs): dict(arm.departs) for arm in grid_arms(study.yaml)}
    seeds: dict[ArmKey, list[int]] = {}
    for cell in (*study.cells, *(o.cell for o in outcomes if o.kind == "run")):
        found = seeds.setdefault(place_of(cell.arm), [])
        if cell.settings.seed not in found:
            found.append(cell.settings.seed)
    runs: dict[ArmKey, list[str]] = {}
    for outcome in outcomes:
        if outcome.kind == "run" and outcome.status == "scored":
            runs.setdefault(key_of(outcome), []).append(outcome.subject)
    return {key: StudyArm(key, departs.get(key), tuple(runs.get(key, ())), tuple(seeds[key])) for key in seeds}


def read_compared(study: Study, results: Path) -> ComparedResults:
    """Read what compare wrote and the outcomes of the runs.

    Raises `UserError` when compare has not run, or was another version.
    """
    folder = results / "compare"
    if not (folder / "compare.json").is_file():
        raise UserError(f"{folder / 'compare.json'}: file not found. Fix: run compare first")
    check_sealed(folder)
    summary = read_json(folder / "compare.json")
    if summary.get("schema") != SCHEMA:
        raise UserError(f"{folder / 'compare.json'}: written by another version of compare. Fix: run compare again")
    scores = _read_table(folder / "scores.csv")
    by_task: dict[str, dict[str, float]] = {}
    for row in scores.to_dict("records"):
        by_task.setdefault(row["task"], {})[row["subject"]] = row["value"]
    return ComparedResults(
        study,
        collect(study, results),
        summary,
        comparisons=_read_table(folder / "comparisons.csv"),
        axes=_read_table(folder / "axes.csv", value=str, base_case_value=str),
        scores=with_pooled_retention(by_task, summary["tasks"]),
    )


def pooled_tasks(tasks: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The retention tasks that are shares of right answers, each with its name."""
    found = ({"name": name} | dict(task) for name, task in tasks.items())
    return [task for task in found if task["group"] == "retention" and task["unit"] == "share"]


def with_pooled_retention(
    scores: dict[str, dict[str, float]], tasks: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """The scores, and for subjects with all retention tasks that are shares their mean."""
    kept = [scores.get(task["name"], {}) for task in pooled_tasks(tasks)]
    if not kept:
        return scores
    subjects = set(kept[0]).intersection(*kept)
    return scores | {POOLED_RETENTION: {run: float(np.mean([task[run] for task in kept])) for run in sorted(subjects)}}


def _read_table(path: Path, **types: type) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=types or None)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    if "verdict" in table:
        table["verdict"] = table["verdict"].fillna("")
    return table
