"""Hours that a change takes, from the seconds that this study's own runs took."""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from loragrid.deciding.compared_results import ArmKey, key_of
from loragrid.deciding.forecast import Forecast
from loragrid.deciding.item_supply import own_name
from loragrid.deciding.study_changes import Change
from loragrid.records.outcomes import Outcome
from loragrid.study.settings import Budget

# Scoring again keeps the tasks that did not change, but loads the model: at most this long, in seconds.
LONGEST_LOADING = 60.0


class Costs:
    """The cost of changes on the device that most of the study's runs were trained on."""

    def __init__(self, forecast: Forecast) -> None:
        self._forecast = forecast
        self._compared = forecast.compared
        runs = [o for o in self._compared.outcomes if o.kind == "run" and o.record and o.record.train_seconds > 0]
        devices = Counter(str(run.record.device.get("name")) for run in runs)
        self.device = devices.most_common(1)[0][0] if devices else None
        self._runs = [run for run in runs if str(run.record.device.get("name")) == self.device]

    @property
    def shares(self) -> int:
        """How often a run is scored: at its end, and at each part of its budget that is kept."""
        return 1 + sum(share < 1 for share in self._compared.study.scoring.at)

    def new_runs(self, change: Change) -> dict[ArmKey, int]:
        """The runs that a change trains, by arm."""
        arms = (*self._compared.arms, *self._forecast.new_arms(change))
        counts = {arm: len(self._forecast.added_seeds(arm, change)) for arm in arms}
        return {arm: count for arm, count in counts.items() if count}

    def hours(self, change: Change) -> dict[str, float]:
        """Hours of training and of scoring that a change adds, one job at a time."""
        train = score = 0.0
        departs = self._forecast.new_arms(change)
        for arm, count in self.new_runs(change).items():
            alike = self._alike(arm)
            longer = self._budget_ratio(alike[0], departs.get(arm, {}))
            train += count * longer * float(np.mean([run.record.train_seconds for run in alike]))
            score += count * self.shares * float(np.mean([self._scoring(run, change.items) for run in alike]))
        if change.items:
            score += sum(self._again(outcome, change.items) for outcome in self._scored)
        return {"train": train / 3600, "score": score / 3600}

    @cached_property
    def _scored(self) -> list[Outcome]:
        """Every subject that was scored: bases, runs, runs at parts of their budget, adopted adapters."""
        found = [part for outcome in self._compared.outcomes for part in (outcome, *outcome.along)]
        return [outcome for outcome in found if outcome.status == "scored"]

    def _alike(self, arm: ArmKey) -> list[Outcome]:
        """The finished runs that are most like an arm: its own, else those that differ in the fewest settings."""
        known = self._compared.arms.get(arm)
        own = [run for run in self._runs if known is not None and run.subject in known.runs]
        if own:
            return own
        away = {run.subject: len(set(arm) ^ set(key_of(run))) for run in self._runs if run.status == "scored"}
        nearest = min(away.values())
        return [run for run in self._runs if away.get(run.subject) == nearest]

    def _budget_ratio(self, run: Outcome, departs: Mapping[str, object]) -> float:
        """How many times as long as a run an arm trains, by its budget."""
        if "budget" not in departs:
            return 1.0
        before, after = run.cell.settings.budget, Budget.read(departs["budget"])
        return after.amount / before.amount if after.unit == before.unit else 1.0

    def _scoring(self, outcome: Outcome, items: Mapping[str, int]) -> float:
        """Seconds of scoring a subject for the first time on these items."""
        changed = self._changed(items)
        score = outcome.score
        return score.seconds + sum((changed.get(task, 1.0) - 1) * found.seconds for task, found in score.tasks.items())

    def _again(self, outcome: Outcome, items: Mapping[str, int]) -> float:
        """Seconds of scoring a subject again where tasks have more items; other tasks are kept."""
        changed, score = self._changed(items), outcome.score
        rest = score.seconds - sum(found.seconds for found in score.tasks.values())
        again = sum(changed[task] * found.seconds for task, found in score.tasks.items() if task in changed)
        return again + min(max(rest, 0.0), LONGEST_LOADING)

    def _changed(self, items: Mapping[str, int]) -> dict[str, float]:
        """Task as results name it → how many times as many items."""
        known = self._forecast.supply.tasks
        return {own_name(task): most / known[own_name(task)].now for task, most in items.items()}
