"""The options: single changes of the study that may close open questions, each with its chances and its cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from loragrid.deciding.compared_results import BASE_CASE, ArmKey
from loragrid.deciding.costs import Costs
from loragrid.deciding.forecast import Forecast
from loragrid.deciding.questions import Question
from loragrid.deciding.study_changes import Change

# Seeds that are added to the arms of a question, and to every arm of the grid.
MORE_SEEDS, MORE_GRID_SEEDS = (1, 2, 3, 5, 8, 13, 21), (1, 2, 3, 5)
# Seeds that are added together with more items.
SEEDS_WITH_ITEMS = (0, 1, 2, 5)
# What is nearly certain needs no more.
CERTAIN = 0.95
# Kinds of options, by what they add.
SEEDS, GRID_SEEDS, ITEMS, SEEDS_AND_ITEMS = "seeds", "grid_seeds", "items", "seeds_and_items"
TOKENS, VALUE, TOGETHER = "tokens", "value", "together"


@dataclass(frozen=True)
class Option:
    """A change with its cost in hours and the chance that it closes each question, by name."""

    kind: str
    change: Change
    train_hours: float
    score_hours: float
    chances: Mapping[str, float]
    runs: int

    @property
    def hours(self) -> float:
        """Hours of training and scoring."""
        return self.train_hours + self.score_hours

    @property
    def expected_closed(self) -> float:
        """The expected number of questions that it closes."""
        return sum(self.chances.values())

    @property
    def hours_per_closed(self) -> float:
        """Hours per expected closed question; infinite if it closes none."""
        return self.hours / self.expected_closed if self.expected_closed > 0 else float("inf")


class OptionMaker:
    """Makes the options of one study's open questions."""

    def __init__(self, forecast: Forecast, costs: Costs, questions: Sequence[Question]) -> None:
        self._forecast, self._costs, self._questions = forecast, costs, questions

    def evaluate(self, kind: str, change: Change) -> Option:
        """The chances and the cost of a change."""
        hours = self._costs.hours(change)
        chances = {question.name: self._forecast.chance(question, change) for question in self._questions}
        runs = sum(self._costs.new_runs(change).values())
        kept = {name: chance for name, chance in chances.items() if chance > 0}
        return Option(kind, change, hours["train"], hours["score"], kept, runs)

    def options(self) -> list[Option]:
        """Every option once, those of a question only as long as they raise its chance."""
        found: dict[str, Option] = {}
        for question in self._questions:
            for kind, changes in self._ladders(question):
                for change in changes:
                    option = found.get(repr(change)) or self.evaluate(kind, change)
                    if option.chances:
                        found[repr(change)] = option
                    if option.chances.get(question.name, 0.0) >= CERTAIN:
                        break
        for seeds in MORE_GRID_SEEDS:
            change = Change(grid_seeds=self._next_seeds(self._grid_seeds, seeds))
            found.setdefault(repr(change), self.evaluate(GRID_SEEDS, change))
        return [option for option in found.values() if option.chances]

    def _ladders(self, question: Question) -> Iterator[tuple[str, Iterator[Change]]]:
        """Kinds of options for a question, each with changes that add more and more."""
        needs, measure = question.needs, question.measure
        kind = VALUE if needs.values or needs.named else SEEDS
        if kind == VALUE and question.about["axis"] == "budget":
            kind = TOKENS
        # A new value has to be trained first, under as many seeds as the grid has.
        more = (0, *MORE_SEEDS) if question.row is None else MORE_SEEDS
        yield kind, (needs | self._seeds_for(question, count) for count in more)
        supply = self._forecast.supply.more(measure)
        if question.row is not None:
            yield ITEMS, (Change(items=items) for items in supply)
        if supply:
            with_items = needs | Change(items=supply[-1])
            changes = (with_items | self._seeds_for(question, count) for count in SEEDS_WITH_ITEMS[1:])
            yield SEEDS_AND_ITEMS, changes

    def _seeds_for(self, question: Question, more: int) -> Change:
        """Seeds for the arms of a question: all are brought to the fewest that one of them has, and `more`."""
        planned = {side.arm: self._forecast.seeds_after(side.arm, question.needs) for side in question.sides}
        goal = max(min(planned.values()) + more, 2)
        added = {}
        for arm, count in planned.items():
            if count < goal and self._can_grow(arm):
                added[arm] = self._next_seeds(self._seeds_of(arm), goal - count)
        return Change(arm_seeds=added)

    def _can_grow(self, arm: ArmKey) -> bool:
        known = self._forecast.compared.arms.get(arm)
        return known is None or known.departs is not None

    @property
    def _grid_seeds(self) -> tuple[int, ...]:
        study = self._forecast.compared.study
        return tuple(study.grid.axes.get("seed", (study.base_case.seed,)))

    def _seeds_of(self, arm: ArmKey) -> tuple[int, ...]:
        known = self._forecast.compared.arms.get(arm)
        return self._grid_seeds if known is None else known.seeds

    def _next_seeds(self, known: Sequence[int], count: int) -> tuple[int, ...]:
        """New seeds for an arm: those of the grid and of the base case first, so that arms share them."""
        case = self._forecast.compared.arms[BASE_CASE].seeds
        pool = dict.fromkeys((*self._grid_seeds, *case, *range(1, len(case) + len(known) + count + 2)))
        return tuple(seed for seed in pool if seed not in known)[:count]
