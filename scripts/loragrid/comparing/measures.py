"""What settings are compared on: each task by itself, and the mean over the retention tasks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loragrid.comparing.item_tables import ItemTable
from loragrid.statistics.seed_spread import SeedSpread, seed_spreads

# The name of the mean over all retention tasks that are shares of right answers.
POOLED_RETENTION = "retention"
# Families of comparisons, in the order of the questions: did the target improve, was anything
# forgotten, and all else. Each is corrected for the number of its own comparisons.
TARGET, RETENTION, EXPLORATORY = "target", "retention", "exploratory"
FAMILIES = (TARGET, RETENTION, EXPLORATORY)
# Measure → first run of a setting → the spread of its scores between seeds.
Spreads = Mapping[str, Mapping[str, SeedSpread]]


@dataclass(frozen=True)
class Measure:
    """A score of every subject: one task's main metric, or the mean over several tasks."""

    name: str
    group: str
    metric: str
    family: str
    higher_is_better: bool
    unit: str
    tables: tuple[ItemTable, ...]

    @property
    def head(self) -> dict[str, Any]:
        """The columns by which a row of the comparison tables names it."""
        return {"task": self.name, "group": self.group, "metric": self.metric, "family": self.family}

    def lacks(self, subjects: Iterable[str]) -> str | None:
        """The first of the subjects without a score on some task, or None."""
        for subject in subjects:
            if any(subject not in table.values for table in self.tables):
                return subject
        return None

    def score(self, subject: str) -> float:
        """The subject's score, over the items that it has; weighted where the metric is."""
        return float(np.mean([_mean(table, subject) for table in self.tables]))


def _mean(table: ItemTable, subject: str) -> float:
    values = table.values[subject]
    mask = ~np.isnan(values)
    return float(np.average(values[mask], weights=table.weights_of(subject, mask)))


def loss_by_byte(table: ItemTable) -> Measure:
    """The held-out loss in bits per byte; `judge_results` uses it where losses per token do not compare."""
    return Measure(table.task, table.group, table.metric, EXPLORATORY, False, "plain", (table,))


def measures_of(tables: Mapping[str, ItemTable], target: str | None) -> list[Measure]:
    """Every task, and after them the pooled retention if any retention task is a share of right answers."""
    measures = [
        Measure(
            name=table.task,
            group=table.group,
            metric=table.metric,
            family=TARGET if table.task == target else EXPLORATORY,
            higher_is_better=table.higher_is_better,
            unit=table.unit,
            tables=(table,),
        )
        for table in tables.values()
    ]
    kept = tuple(table for table in tables.values() if table.group == "retention" and table.unit == "share")
    if kept:
        measures.append(Measure(POOLED_RETENTION, "retention", "mean", RETENTION, True, "share", kept))
    return measures


def spreads_of(measures: Iterable[Measure], settings: Iterable[Sequence[str]]) -> dict[str, dict[str, SeedSpread]]:
    """The seeds' spread of each measure, for settings given as their runs' subjects."""
    settings = [runs for runs in settings if len(runs) > 1]
    found = {}
    for measure in measures:
        scored = [runs for runs in settings if measure.lacks(runs) is None]
        found[measure.name] = seed_spreads({runs[0]: np.array([measure.score(run) for run in runs]) for runs in scored})
    return found


def describe_spreads(spreads: Spreads) -> dict[str, dict[str, Any]]:
    """Measure → the pooled spread (None if nothing was pooled) and the settings with one of their own."""
    described = {}
    for name, by_setting in spreads.items():
        if not by_setting:
            continue
        pooled = [spread for spread in by_setting.values() if spread.pooled]
        own = {run: {"sd": s.variance**0.5, "df": s.df} for run, s in by_setting.items() if not s.pooled}
        shared = {"sd": pooled[0].variance ** 0.5, "df": pooled[0].df, "settings": len(pooled)} if pooled else None
        described[name] = {"pooled": shared, "own": own}
    return described
