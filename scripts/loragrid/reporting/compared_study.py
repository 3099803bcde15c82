"""What compare found, as the report reads it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class ComparedStudy:
    """compare.json, its tables, and the names that the page uses.

    `labels` names each run; `setting_labels` names its setting, without the seed; `axis_names`
    names each axis; `adopted` are the subjects of adopted adapters.
    """

    summary: dict[str, Any]
    comparisons: pd.DataFrame
    axes: pd.DataFrame
    labels: dict[str, str]
    setting_labels: dict[str, str]
    base_case_runs: tuple[str, ...]
    axis_names: dict[str, str]
    adopted: tuple[str, ...] = ()

    @property
    def of_runs(self) -> pd.DataFrame:
        """The comparisons with bases without those of adopted adapters, which nobody trained here."""
        return self.comparisons[~self.comparisons["run"].isin(self.adopted)]

    @property
    def target(self) -> str | None:
        """The main target task; None if no target was scored."""
        return self.summary["primary_target"]

    @property
    def units(self) -> dict[str, str]:
        """Task → share or plain."""
        return {task: known["unit"] for task, known in self.summary["tasks"].items()}

    @property
    def unit(self) -> str:
        """Unit of the main target: share or plain."""
        return self.units[self.target] if self.target else "plain"

    @property
    def higher_is_better(self) -> bool:
        """Direction of the main target."""
        return self.summary["tasks"][self.target]["higher_is_better"] if self.target else True

    @property
    def interval(self) -> str:
        """Name of the intervals, such as "95% interval"."""
        return f"{round((1 - self.summary['terms']['alpha']) * 100)}% interval"

    @property
    def power(self) -> str:
        """Power of the smallest detectable differences, such as "80%"."""
        return f"{self.summary['terms']['power'] * 100:g}%"

    def axis(self, axis: str) -> str:
        """The axis's name on the page; rank's mentions alpha."""
        return self.axis_names[axis]

    def noun(self, rows: pd.DataFrame) -> str:
        """What a row of comparisons is: one run, or a setting whose seeds were averaged."""
        return "scored run" if (rows["seeds"] == 1).all() else "setting"
