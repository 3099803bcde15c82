"""The comparisons that a study will make and the scores that it will make them on, before anything is trained."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from loragrid.planning.expected_noise import ExpectedNoise, assumed_noise
from loragrid.planning.scoring_cost import TaskSize
from loragrid.statistics import design_power
from loragrid.statistics.design_power import Design, NoiseVariances
from loragrid.study.cell_pairs import cell_pairs, settings_of_cells
from loragrid.study.study_file import Study

# The same designs return in every search for the items or seeds that a study needs.
smallest_difference = lru_cache(maxsize=4096)(design_power.smallest_difference)
power_of = lru_cache(maxsize=4096)(design_power.power_of)
pass_probability = lru_cache(maxsize=4096)(design_power.pass_probability)


@dataclass(frozen=True)
class Contrast:
    """A comparison of settings: the seeds of each trained arm in it, and the pairs that it averages."""

    seeds: tuple[int, ...]
    pairs: int = 1


@dataclass(frozen=True)
class Contrasts:
    """The comparisons on one score whose trained arms all have two seeds, so that settings are judged.

    `seeds` are those of all settings of the study.
    """

    versus_base: tuple[Contrast, ...]
    between_settings: tuple[Contrast, ...]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.versus_base) + len(self.between_settings)

    @property
    def fewest_seeds(self) -> int:
        """The seeds of the arm that has the fewest of all that are compared."""
        return min(count for contrast in (*self.versus_base, *self.between_settings) for count in contrast.seeds)

    def with_seeds(self, fewest: int) -> "Contrasts":
        """The same with at least that many seeds in every arm."""
        raised = [
            tuple(Contrast(_at_least(fewest, contrast.seeds), contrast.pairs) for contrast in contrasts)
            for contrasts in (self.versus_base, self.between_settings)
        ]
        return Contrasts(*raised, _at_least(fewest, self.seeds))


def _at_least(fewest: int, seeds: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(count, fewest) for count in seeds)


def planned_contrasts(study: Study) -> Contrasts:
    """The comparisons that loragrid/comparing makes of the study's cells, once all are trained and scored."""
    seeds = tuple(len(cells) for cells in settings_of_cells(study.cells))
    versus_base, between = [Contrast((count,)) for count in seeds], []
    for value in cell_pairs(study.cells, study):
        contrast = Contrast(tuple(len(side) for pair in value.pairs for side in pair if side), len(value.pairs))
        # The other side of the method `none` is the untrained base.
        untrained = not value.pairs[0][1]
        (versus_base if untrained else between).append(contrast)
    of_settings = (tuple(c for c in found if min(c.seeds) > 1) for found in (versus_base, between))
    return Contrasts(*of_settings, seeds)


@dataclass(frozen=True)
class Measure:
    """A score of one task, or the mean over several, on independent `units` of its items."""

    items: int
    units: int
    noise: ExpectedNoise

    @classmethod
    def of(cls, sizes: Sequence[TaskSize], measured: ExpectedNoise | None) -> "Measure | None":
        """The mean over tasks of these sizes, None if one is unknown; with the measured noise if there is one."""
        if not sizes or any(size.items is None for size in sizes):
            return None
        items = sum(size.items for size in sizes)
        if measured is not None:
            return cls(items, max(2, round(items * measured.units_per_item)), measured)
        units = [size.units or size.items for size in sizes]
        # A mean over tasks of unequal size varies more than one over as many items of one task.
        unequal = sum(units) * sum(1 / count for count in units) / len(units) ** 2
        return cls(items, sum(units), assumed_noise(len(sizes), unequal))

    def with_items(self, items: int) -> "Measure":
        """The same on another number of items."""
        return replace(self, items=items, units=round(self.units * items / self.items))


@dataclass(frozen=True)
class Question:
    """What comparisons of one score at one `level`, alpha divided by their family's number, can find."""

    measure: Measure
    contrasts: Contrasts
    level: float

    def smallest_from_base(self, power: float) -> float | None:
        """The difference that is found with this power for every setting against its base; None if none is."""
        return _worst(smallest_difference(design, noise, power=power) for design, noise in self._versus_base())

    def smallest_between_settings(self, power: float) -> float | None:
        """The same for every value of an axis against the base case's."""
        return _worst(smallest_difference(design, noise, power=power) for design, noise in self._between_settings())

    def least_power(self, difference: float) -> float:
        """The chance to find a difference, in the comparison that is least likely to find it."""
        designs = [*self._versus_base(), *self._between_settings()]
        return min(power_of(design, noise, difference) for design, noise in designs)

    def pass_probability(self, margin: float) -> float:
        """The chance of an unchanged setting to stay above minus the margin, for the setting with the least."""
        return min(pass_probability(design, noise, margin) for design, noise in self._versus_base())

    def _versus_base(self) -> Iterator[tuple[Design, NoiseVariances]]:
        return self._designs(self.contrasts.versus_base, self.measure.noise.versus_base)

    def _between_settings(self) -> Iterator[tuple[Design, NoiseVariances]]:
        return self._designs(self.contrasts.between_settings, self.measure.noise.between_settings)

    def _designs(self, contrasts: Sequence[Contrast], noise: NoiseVariances) -> Iterator[tuple[Design, NoiseVariances]]:
        for contrast in dict.fromkeys(contrasts):
            others = Counter(self.contrasts.seeds) - Counter(contrast.seeds)
            design = Design(
                items=self.measure.units,
                seeds=contrast.seeds,
                other_seeds=tuple(sorted(others.elements())),
                level=self.level,
                pairs=contrast.pairs,
            )
            yield design, noise


def _worst(differences: Iterator[float]) -> float | None:
    """The largest of the differences; None if there is none, or if one of them is beyond any."""
    found = list(differences)
    if not found or any(math.isnan(difference) for difference in found):
        return None
    return max(found)
