"""What is believed about true effects and spreads before a comparison: learned from the study's own comparisons.

A difference that is measured large is in part luck, so it is shrunk toward the center of its kind by how much
the effects of this study vary beyond their errors (empirical Bayes: Efron & Morris 1975, Journal of the American
Statistical Association 70:311). Nothing is assumed to be smaller than half the margin. Values of an axis are
better as often as worse, so their center is zero; what all settings gain over their base, or lose of what it
could do, has a center of its own: if most of them lose something, one that seems to lose nothing was lucky.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.deciding.closing import Effect, Noise, SpreadBelief
from loragrid.deciding.compared_results import ArmKey, ComparedResults
from loragrid.deciding.questions import AXIS, GAIN, RETENTION, Side, axis_sides, known, margin_of
from loragrid.planning.expected_noise import assumed_noise
from loragrid.statistics.seed_spread import seed_spreads

# ASSUME: where no setting has two seeds, seeds vary a score that is no share by this part of the margin.
ASSUMED_SPREAD = 0.6
# ASSUME: an assumed or single spread counts as one on this many degrees of freedom.
ASSUMED_DF = 4
# ASSUME: where nothing is measured, half of what varies over items varies with the seed too.
ASSUMED_FLIPS = 0.5
# The median of a squared standard normal.
MEDIAN_SQUARE = 0.4549


@dataclass(frozen=True)
class Measured:
    """A row's difference, its noise, and the arms that it compares."""

    kind: str
    measure: str
    difference: float
    noise: Noise
    sides: tuple[Side, ...]


class Beliefs:
    """The beliefs about a compared study; `assumed` says whether the spread of a measure was not measured."""

    def __init__(self, compared: ComparedResults) -> None:
        self._compared = compared
        self._centers: dict[str, tuple[float, float]] = {}
        self._own: dict[str, Mapping[ArmKey, SpreadBelief]] = {}
        self.assumed: dict[str, bool] = {}
        self._flips: dict[str, float | None] = {}
        self._effects: dict[tuple[str, str], Effect] = {}

    def spread(self, measure: str, arm: ArmKey) -> SpreadBelief:
        """The spread between an arm's seeds: that of all arms together, unless its own is clearly larger."""
        if measure not in self._own:
            self._measure_spreads(measure)
        variance, df = self._centers[measure]
        return self._own[measure].get(arm, SpreadBelief(variance, df, shared=True))

    def _measure_spreads(self, measure: str) -> None:
        found = seed_spreads({arm: self._compared.scores_of(measure, arm) for arm in self._compared.arms})
        own, pooled = {}, [spread for spread in found.values() if spread.pooled]
        if pooled:
            center = pooled[0].variance, float(pooled[0].df)
            for arm, spread in found.items():
                if not spread.pooled:
                    df = spread.df + ASSUMED_DF
                    variance = (spread.df * spread.variance + ASSUMED_DF * center[0]) / df
                    own[arm] = SpreadBelief(variance, df, shared=False)
        else:
            df = sum(spread.df for spread in found.values())
            squares = sum(spread.df * spread.variance for spread in found.values())
            assumed = self._assumed_spread(measure)
            center = (squares + ASSUMED_DF * assumed) / (df + ASSUMED_DF), float(df + ASSUMED_DF)
        self.assumed[measure] = not found
        self._centers[measure], self._own[measure] = center, own

    def _assumed_spread(self, measure: str) -> float:
        """The variance between seeds before anything is measured, as the plan assumes it."""
        tasks = self._compared.tasks_of(measure)
        if any(task["unit"] != "share" for task in tasks):
            return (ASSUMED_SPREAD * self._margin(measure)) ** 2
        noise = assumed_noise(len(tasks)).versus_base
        return noise.spread(sum(task["clusters"] or task["items"] for task in tasks))

    def _margin(self, measure: str) -> float:
        """The margin of a measure; where there is none, a twentieth of the mean score."""
        margin = margin_of(self._compared, measure)
        if margin is not None:
            return margin
        return abs(float(np.mean(list(self._compared.scores[measure].values())))) / 20

    def noise(self, row: Mapping[str, Any], sides: Sequence[Side]) -> Noise:
        """The variances per item of a row: measured if its arms have two seeds, else as in the study's other rows."""
        units, total = known(row["units"]), known(row["stderr"]) ** 2
        flips = known(row.get("item_seed_variance"))
        if flips is not None and len(sides):
            return Noise(known(row["item_variance"]), flips, units)
        # With one seed the error over items holds both parts.
        seeds = sum(side.weight**2 / self._seeds(side.arm) for side in sides)
        both = total * units
        if not seeds:
            return Noise(both, 0.0, units)
        flips = self._typical_flips(str(row["task"]))
        flips = ASSUMED_FLIPS * both / seeds if flips is None else min(flips, both / seeds)
        return Noise(both - seeds * flips, flips, units)

    def _seeds(self, arm: ArmKey) -> int:
        return max(1, len(self._compared.arms[arm].runs))

    def _typical_flips(self, measure: str) -> float | None:
        """The median of what varies with item and seed together, over the rows that measure it."""
        if measure not in self._flips:
            rows = [row for row in self._compared.rows if row["task"] == measure]
            found = [value for row in rows if (value := known(row.get("item_seed_variance")))]
            self._flips[measure] = float(np.median(found)) if found else None
        return self._flips[measure]

    def effect(self, kind: str, measure: str) -> Effect:
        """The belief about a difference of this kind on this measure, before its own measurement."""
        key = kind, measure
        if key not in self._effects:
            rows = [row for row in self.measured() if (row.kind, row.measure) == key]
            differences = np.array([row.difference for row in rows])
            errors = np.array([self.error(row) for row in rows])
            # By the median, so that a setting that failed altogether does not count for all; a zero joins few rows.
            center = 0.0 if kind == AXIS else float(np.median([*differences, 0.0]))
            sd = effect_spread(differences - center, errors, floor=self._margin(measure) / 2)
            self._effects[key] = Effect(center, sd)
        return self._effects[key]

    def shrunk(self, row: Measured) -> float:
        """The expected true difference of a row, given its measured one."""
        belief = self.effect(row.kind, row.measure)
        prior = belief.sd**2
        return belief.mean + (row.difference - belief.mean) * prior / (prior + self.error(row))

    def error(self, row: Measured) -> float:
        """The variance of a measured difference, its seeds' spread included."""
        of_seeds = [
            side.weight**2 * self.spread(row.measure, side.arm).variance / self._seeds(side.arm) for side in row.sides
        ]
        return row.noise.item / row.noise.units + sum(of_seeds)

    def measured(self) -> Iterable[Measured]:
        """Every tested row on the target and on pooled retention."""
        compared = self._compared
        sides = axis_sides(compared)
        for row in compared.axes.to_dict("records"):
            if row["verdict"] and row["task"] == compared.target:
                found = sides[row["axis"], row["value"]]
                yield Measured(AXIS, row["task"], row["difference"], self.noise(row, found), found)
        for row in compared.comparisons.to_dict("records"):
            arm = compared.arm_of(row["run"])
            if row["verdict"] and arm is not None and row["task"] in (compared.target, POOLED_RETENTION):
                kind = GAIN if row["task"] == compared.target else RETENTION
                found = (Side(arm, 1.0),)
                yield Measured(kind, row["task"], row["difference"], self.noise(row, found), found)


def effect_spread(differences: np.ndarray, errors: np.ndarray, *, floor: float) -> float:
    """The standard deviation of true effects about zero, from measured ones and their error variances: `floor` or more.

    By the median, so that a few settings that fail altogether do not count for all. Few rows are
    joined by two of the typical size under a deviation of twice the floor.
    """
    from scipy.optimize import brentq

    squares = np.concatenate([differences**2, np.full(2, MEDIAN_SQUARE * (2 * floor) ** 2)])
    errors = np.concatenate([errors, np.zeros(2)])

    def excess(log_variance: float) -> float:
        return float(np.median(squares / (errors + np.exp(log_variance)))) - MEDIAN_SQUARE

    lowest, highest = 2 * np.log(floor), np.log(squares.max() / MEDIAN_SQUARE) + 1
    if excess(lowest) <= 0:
        return floor
    return float(np.exp(brentq(excess, lowest, highest) / 2))
