"""What a design can find, before anything is trained: per task the smallest difference, and the margin's chance.

The families are those of loragrid/comparing: the main target over all settings and axis values, the mean
of the retention tasks over the same, and all other tasks together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from loragrid.planning.expected_noise import ExpectedNoise, measured_noise
from loragrid.planning.planned_comparisons import Contrasts, Measure, Question, planned_contrasts
from loragrid.planning.scoring_cost import TaskSize, task_sizes
from loragrid.study.study_file import Study

# As loragrid/comparing/measures.py names the families and the mean over the retention tasks.
TARGET, RETENTION, EXPLORATORY = "target", "retention", "exploratory"
# ASSUME: a task is of no use if even this difference is not found with the study's power.
LARGEST_USEFUL = 0.25
# ASSUME: a margin is of no use if a setting that forgot nothing passes it less often than this.
LEAST_USEFUL_CHANCE = 0.5
MOST_SEEDS = 10
FIGURES = ("versus_base", "between_settings", "least_power")
UNKNOWN = TaskSize(items=None, requests=1, request_tokens=0, answer_tokens=0)


def design_power(study: Study, results: Path) -> dict[str, Any]:
    """What the plan says of the design as plain values.

    `contrasts` counts the comparisons on one task, `comparisons` those corrected together. `tasks` and
    `retention`, the mean of the retention tasks, are rows with the smallest difference from a setting's
    base and from the base case as shares, None if not even a difference of 1 is found with the study's
    power. Losses have no row and are named in `losses`. A row that cannot find a difference of
    `LARGEST_USEFUL` has two more keys, `seeds_needed` (in every arm) and `items_needed`, each None if no
    number within reach is enough.
    """
    power = _DesignPower(study, planned_contrasts(study), measured_noise(results))
    return {
        "power": study.compare.power,
        "margin": study.compare.retention_margin,
        "settings": len(power.contrasts.seeds),
        "one_seed": sum(count == 1 for count in power.contrasts.seeds),
        "contrasts": {
            "versus_base": len(power.contrasts.versus_base),
            "between_settings": len(power.contrasts.between_settings),
        },
        "comparisons": {family: power.comparisons(family) for family in (TARGET, RETENTION, EXPLORATORY)},
        "tasks": power.task_rows(),
        "retention": power.retention_row(),
        "losses": [name for name in study.scoring.tasks if name not in power.shares],
    }


@dataclass(frozen=True)
class _DesignPower:
    study: Study
    contrasts: Contrasts
    measured: dict[str, ExpectedNoise]

    @cached_property
    def shares(self) -> dict[str, TaskSize]:
        """The tasks whose score is a share of right answers, with their sizes."""
        sizes = {name: size or UNKNOWN for name, size in task_sizes(self.study.scoring).items()}
        return {name: size for name, size in sizes.items() if size.share}

    @property
    def main_target(self) -> str | None:
        """The main target task, as in loragrid/comparing/study_results.py; None if it is a loss."""
        return next((name for name in self.study.scoring.target if name in self.shares), None)

    def comparisons(self, family: str) -> int:
        """The number of comparisons that are corrected together."""
        others = len(self.study.scoring.tasks) - 1
        return len(self.contrasts) * (others if family == EXPLORATORY else 1)

    def task_rows(self) -> list[dict[str, Any]]:
        rows = []
        for name in self.shares:
            family = TARGET if name == self.main_target else EXPLORATORY
            rows.append({"task": name, "family": family} | self._row([name], family, self.measured.get(name)))
        return rows

    def retention_row(self) -> dict[str, Any] | None:
        """The row of the mean over the retention tasks, with `pass_if_unchanged` and `margin_needed`.

        A setting that forgot nothing passes the study's margin with the first, and the second with the
        study's power. If it seldom passes, further keys say what would help.
        """
        tasks = [name for name in self.study.scoring.retention if name in self.shares]
        if not tasks:
            return None
        row = {"tasks": tasks, "family": RETENTION} | self._row(tasks, RETENTION, self.measured.get(RETENTION))
        measure, margin = self._measure(tasks, self.measured.get(RETENTION)), self.study.compare.retention_margin
        figures = {"pass_if_unchanged": None, "margin_needed": None}
        if measure is None or not self.contrasts.versus_base:
            return row | figures
        # An interval is not corrected for the number of comparisons.
        question = Question(measure, self.contrasts, self.study.compare.alpha)
        chance = question.pass_probability(margin)
        figures = {"pass_if_unchanged": chance, "margin_needed": question.smallest_from_base(self.study.compare.power)}
        if chance < LEAST_USEFUL_CHANCE:
            needs = self._needs(question, tasks, lambda other: other.pass_probability(margin))
            figures |= {f"{name}_to_pass": value for name, value in needs.items()}
            more = replace(question, contrasts=self.contrasts.with_seeds(self.contrasts.fewest_seeds + 1))
            figures["margin_with_one_more_seed"] = more.smallest_from_base(self.study.compare.power)
        return row | figures

    def _measure(self, tasks: Sequence[str], measured: ExpectedNoise | None) -> Measure | None:
        return Measure.of([self.shares[name] for name in tasks], measured)

    def _row(self, tasks: Sequence[str], family: str, measured: ExpectedNoise | None) -> dict[str, Any]:
        measure, power = self._measure(tasks, measured), self.study.compare.power
        row = {"comparisons": self.comparisons(family), "items": None, "units": None, "noise_from": None}
        row |= dict.fromkeys(FIGURES)
        if measure is None:
            return row
        row |= {"items": measure.items, "units": measure.units, "noise_from": measure.noise.source}
        if not len(self.contrasts):
            return row
        question = Question(measure, self.contrasts, self.study.compare.alpha / row["comparisons"])
        row |= {
            "versus_base": question.smallest_from_base(power),
            "between_settings": question.smallest_between_settings(power),
            "least_power": question.least_power(LARGEST_USEFUL),
        }
        if row["least_power"] < power:
            row |= self._needs(question, tasks, lambda other: other.least_power(LARGEST_USEFUL))
        return row

    def _needs(
        self, question: Question, tasks: Sequence[str], chance: Callable[[Question], float]
    ) -> dict[str, int | None]:
        """The fewest seeds per arm, and the fewest items, with which the chance reaches the study's power."""
        whole = task_sizes(replace(self.study.scoring, limit=None))
        most = sum(whole[name].items for name in tasks)
        contrasts, measure = question.contrasts, question.measure
        fewest = min(count for count in contrasts.seeds if count > 1)
        with_seeds = {
            count: replace(question, contrasts=contrasts.with_seeds(count))
            for count in range(fewest + 1, MOST_SEEDS + 1)
        }
        counts = sorted({min(2**doublings * measure.items, most) for doublings in range(11)} - {measure.items})
        with_items = {count: replace(question, measure=measure.with_items(count)) for count in counts}

        def first_enough(questions: dict[int, Question]) -> int | None:
            return next((n for n, other in questions.items() if chance(other) >= self.study.compare.power), None)

        return {"seeds_needed": first_enough(with_seeds), "items_needed": first_enough(with_items)}
