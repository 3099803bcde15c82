"""What compare found, as the report reads it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from loragrid.comparing.contrasts import SETTING
from loragrid.comparing.measures import POOLED_RETENTION


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
        """Task → share or plain; the mean over the retention tasks is a share."""
        units = {task: known["unit"] for task, known in self.summary["tasks"].items()}
        return units | {POOLED_RETENTION: "share"}

    @property
    def unit(self) -> str:
        """Unit of the main target: share or plain."""
        return self.units[self.target] if self.target else "plain"

    @property
    def higher_is_better(self) -> bool:
        """Direction of the main target."""
        return self.is_higher_better(self.target)

    def is_higher_better(self, task: str | None) -> bool:
        """Direction of a task; of the mean over the retention tasks, and without a task, upwards."""
        known = self.summary["tasks"].get(task)
        return known["higher_is_better"] if known else True

    @property
    def judges_settings(self) -> bool:
        """Whether any setting was trained under two seeds, so that something can be said of settings."""
        return bool((self.of_runs["level"] == SETTING).any())

    @property
    def one_seed_settings(self) -> int:
        """The number of trained settings with one seed."""
        rows = self.of_runs
        return rows.loc[rows["seeds"] == 1, "run"].nunique()

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
