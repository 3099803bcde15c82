"""A study as it would be after a change: seeds and items of every comparison, and the chance that it closes."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from loragrid.comparing.contrasts import SETTING
from loragrid.comparing.measures import POOLED_RETENTION, RETENTION, TARGET
from loragrid.deciding import questions as kinds
from loragrid.deciding.beliefs import Beliefs, Measured
from loragrid.deciding.closing import ArmSeeds, Case, Effect, Noise, Rule, closing_chance
from loragrid.deciding.compared_results import ArmKey, ComparedResults
from loragrid.deciding.item_supply import ItemSupply
from loragrid.deciding.questions import AXIS, GAIN, Question, Side, axis_sides
from loragrid.deciding.study_changes import Change, changed_file
from loragrid.statistics.paired_statistics import BETTER, WORSE
from loragrid.study.cell_pairs import place_of
from loragrid.study.completion import complete
from loragrid.study.grid import arms as grid_arms


class Forecast:
    """Predictions for one compared study; equal cases are simulated once."""

    def __init__(self, compared: ComparedResults, supply: ItemSupply) -> None:
        self.compared, self.supply = compared, supply
        self.beliefs = Beliefs(compared)
        self._chances: dict[tuple[Case, Rule], float] = {}
        self._new_arms: dict[str, dict[ArmKey, Mapping[str, Any]]] = {}

    def new_arms(self, change: Change) -> dict[ArmKey, Mapping[str, Any]]:
        """The arms that a change adds, with what departs in each."""
        key = repr((change.values, change.named))
        if key not in self._new_arms:
            found: dict[ArmKey, Mapping[str, Any]] = {}
            if change.values or change.named:
                file = changed_file(self.compared.study, Change(values=change.values, named=change.named), {})
                listed = {place_of(arm.label or arm.departs): dict(arm.departs) for arm in grid_arms(complete(file))}
                found = {arm: departs for arm, departs in listed.items() if arm not in self.compared.arms}
            self._new_arms[key] = found
        return self._new_arms[key]

    def seeds_before(self, arm: ArmKey) -> int:
        """The scored seeds of an arm."""
        known = self.compared.arms.get(arm)
        return 0 if known is None else len(known.runs)

    def added_seeds(self, arm: ArmKey, change: Change) -> list[int]:
        """The seeds under which a change trains an arm anew."""
        known, wanted = self.compared.arms.get(arm), change.seeds_of(arm)
        if known is not None:
            return [seed for seed in wanted if seed not in known.seeds]
        listed = self.compared.study.grid.axes.get("seed", (self.compared.study.base_case.seed,))
        return [*listed, *(seed for seed in wanted if seed not in listed)]

    def seeds_after(self, arm: ArmKey, change: Change) -> int:
        """The scored seeds that an arm will have."""
        return self.seeds_before(arm) + len(self.added_seeds(arm, change))

    def concerns(self, question: Question, change: Change) -> bool:
        """Whether a change adds anything to a question's comparison."""
        needs = question.needs
        if not all(value in change.values for value in needs.values) or not needs.named.keys() <= change.named.keys():
            return False
        more_seeds = any(self.added_seeds(side.arm, change) for side in question.sides)
        return more_seeds or self.supply.growth(question.measure, change.items) > 1

    def chance(self, question: Question, change: Change) -> float:
        """The chance that a change closes a question."""
        if not self.concerns(question, change):
            return 0.0
        case, rule = self._case(question, change), self._rule(question, change)
        if (case, rule) not in self._chances:
            self._chances[case, rule] = closing_chance(case, rule)
        return self._chances[case, rule]

    def _case(self, question: Question, change: Change) -> Case:
        measure = question.measure
        noise = self._noise(question)
        sides = {side.arm: side.weight for side in question.sides}
        others = [arm for arm in (*self.compared.arms, *self.new_arms(change)) if arm not in sides]
        arms = tuple(self._arm(measure, arm, weight, change) for arm, weight in sides.items())
        rest = (self._arm(measure, arm, 0.0, change) for arm in others)
        return Case(
            estimate=None if question.row is None else float(question.row["difference"]),
            effect=self.effect(question),
            noise=noise,
            units_after=noise.units * self.supply.growth(measure, change.items),
            arms=arms,
            others=tuple(arm for arm in rest if arm.after > 1),
        )

    def _arm(self, measure: str, arm: ArmKey, weight: float, change: Change) -> ArmSeeds:
        scores = self.compared.scores_of(measure, arm)
        squares = float(((scores - scores.mean()) ** 2).sum()) if len(scores) else 0.0
        after = self.seeds_after(arm, change)
        return ArmSeeds(weight, self.seeds_before(arm), after, squares, self.beliefs.spread(measure, arm))

    def _noise(self, question: Question) -> Noise:
        if question.row is not None:
            return self.beliefs.noise(question.row, question.sides)
        # A value that was not trained yet varies like those that were.
        rows = [row.noise for row in self._measured if row.measure == question.measure]
        parts = ([getattr(noise, part) for noise in rows] for part in ("item", "item_seed", "units"))
        return Noise(*(float(np.median(values)) for values in parts))

    @cached_property
    def _measured(self) -> list[Measured]:
        rows = list(self.beliefs.measured())
        return [row for row in rows if row.kind == AXIS] or [row for row in rows if row.kind == GAIN]

    def effect(self, question: Question) -> Effect:
        """The belief about the true difference before it is measured."""
        if question.kind in (kinds.BEYOND, kinds.LONGER):
            return Effect(question.expected, self.beliefs.effect(AXIS, question.measure).sd)
        return self.beliefs.effect(question.kind, question.measure)

    def expected(self, question: Question) -> float:
        """The expected true difference: the measured one, shrunk, or that of the values nearby."""
        if question.row is None:
            return question.expected
        difference = float(question.row["difference"])
        row = Measured(question.kind, question.measure, difference, self._noise(question), question.sides)
        return self.beliefs.shrunk(row)

    def _rule(self, question: Question, change: Change) -> Rule:
        terms = self.compared.terms
        one_sided = question.kind == kinds.RETENTION
        return Rule(self._level(question.measure, change), terms["alpha"], question.margin, one_sided)

    def _level(self, measure: str, change: Change) -> float:
        """The level of the next proof in the family of a measure, after what is proved already."""
        family = RETENTION if measure == POOLED_RETENTION else TARGET
        terms, size, proved = self.compared.terms, 0, 0
        for row, sides in self._tested[family]:
            size += all(self.seeds_after(side.arm, change) > 1 for side in sides)
            proved += row["level"] == SETTING and row["verdict"] in (BETTER, WORSE)
        # A new arm is compared with the base case and with its base.
        size += sum(2 for arm in self.new_arms(change) if self.seeds_after(arm, change) > 1)
        if terms["correction"] == "bh":
            return terms["alpha"] * min(1.0, (proved + 1) / max(size, 1))
        return terms["alpha"] / max(size - proved, 1)

    @cached_property
    def _tested(self) -> dict[str, list[tuple[dict[str, Any], Sequence[Side]]]]:
        """Family → its tested rows, each with the trained arms that it compares."""
        compared, sides = self.compared, axis_sides(self.compared)
        found: dict[str, list] = {TARGET: [], RETENTION: []}
        for row in compared.rows:
            if row["verdict"] and row["family"] in found:
                if "axis" in row:
                    found[row["family"]].append((row, sides[row["axis"], row["value"]]))
                elif (arm := compared.arm_of(row["run"])) is not None:
                    found[row["family"]].append((row, (Side(arm, 1.0),)))
        return found
