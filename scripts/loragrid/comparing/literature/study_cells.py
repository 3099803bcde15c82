"""What the rules of published findings look at: a study's judged axes and its runs."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from loragrid.comparing.contrasts import SETTING
from loragrid.comparing.study_results import JudgedTables
from loragrid.records.outcomes import Outcome
from loragrid.statistics.paired_statistics import UNSURE

AGREES, DISAGREES, NOT_TESTED = "agrees", "disagrees", "not tested"
# A result with its reason: a code with the numbers that the report's sentence needs.
RuleResult = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class StudyCells:
    """A study's comparisons and outcomes. `target` is the main target task, whose unit is `unit`."""

    judged: JudgedTables
    outcomes: list[Outcome]
    target: str | None
    unit: str

    def of_axis(self, axis: str) -> pd.DataFrame:
        """The judged rows of one axis on the main target that speak of settings."""
        rows = self._all_of(axis)
        return rows if rows.empty else rows[(rows["verdict"] != "") & (rows["level"] == SETTING)]

    def _all_of(self, axis: str) -> pd.DataFrame:
        axes = self.judged.axes
        return axes if axes.empty else axes[(axes["axis"] == axis) & (axes["task"] == self.target)]

    def without_rows(self, axis: str) -> RuleResult:
        """The answer for an axis without a row about settings: not varied, not comparable, or one seed."""
        rows = self._all_of(axis)
        if rows.empty:
            return NOT_TESTED, {"code": "not_varied", "axis": axis}
        judged = rows[rows["verdict"] != ""]
        if (judged["level"] == SETTING).any():
            # The axis has other values than those that the finding is about.
            return NOT_TESTED, {"code": "not_varied", "axis": axis}
        if len(judged):
            return needs_second_seed(axis)
        row = rows.iloc[0]
        names = [name for name in ("reason", "task", "units", "unscored", "token_ratio") if name in row]
        return UNSURE, {"code": "not_compared", "row": {name: row[name] for name in names}}

    def has_one_seed(self, axis: str) -> bool:
        """Whether some judged value of the axis was trained under one seed only."""
        rows = self._all_of(axis)
        return bool(((rows["verdict"] != "") & (rows["level"] != SETTING)).any())


def needs_second_seed(axis: str) -> RuleResult:
    """The answer where the runs are there, each under one seed: two adapters say nothing of a setting."""
    return UNSURE, {"code": "needs_second_seed", "axis": axis}
