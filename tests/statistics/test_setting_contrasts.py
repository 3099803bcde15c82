"""Differences of settings with crossed seeds and items: by hand, and by simulation."""

from dataclasses import dataclass

import numpy as np
import pytest

from loragrid.statistics.seed_spread import SeedSpread, seed_spreads
from loragrid.statistics.setting_contrasts import Arm, ContrastTest, SeedShare, contrast_test, item_part


def difference(arms: list[np.ndarray], one: int, other: int, weights: np.ndarray | None = None) -> ContrastTest:
    """Arm `other` minus arm `one`, each (k, n); an arm of one run has no seed."""
    spreads = seed_spreads({place: arm.mean(axis=1) for place, arm in enumerate(arms)})
    weights = np.ones(arms[0].shape[1]) if weights is None else weights
    sides = [(one, -1.0), (other, 1.0)]
    part = item_part([Arm(arms[place], weights, sign, spreads.get(place)) for place, sign in sides], None)
    seeds = [SeedShare(1 / len(arms[place]), spreads[place]) for place, _ in sides if place in spreads]
    return contrast_test([part], seeds, 0.95)


def test_the_variances_by_hand() -> None:
    """Two arms of two seeds on four items, whose parts are small enough to add up."""
    base = np.array([[1.0, 0, 1, 0]])
    tuned = np.array([[1.0, 1, 1, 0], [1.0, 1, 0, 1]])
    found = difference([base, tuned], 0, 1)
    assert found.difference == 0.25
    # Both runs score 3/4, so their spread is zero; the third and fourth item flip between them.
    own = np.array([0.0, 1.0, -0.5, 0.5])
    over_items = own.var(ddof=1) / 4
    flips = np.array([[0, 0, 0.5, -0.5], [0, 0, -0.5, 0.5]]) / 4
    assert found.parts.variances == pytest.approx([over_items - (flips**2).sum() / 2 * 4 / 3, 0.0])


def test_a_pooled_spread_is_one_part_and_own_ones_are_several() -> None:
    pooled, own = SeedSpread(0.01, 6, pooled=True), SeedSpread(0.04, 1, pooled=False)
    part = item_part([Arm(np.eye(4), np.ones(4), 1.0, None)], None)
    found = contrast_test([part], [SeedShare(0.5, pooled), SeedShare(0.25, pooled), SeedShare(0.5, own)], 0.95)
    assert found.parts.variances[1:] == pytest.approx([0.0075, 0.02])
    assert found.parts.df[1:] == pytest.approx([6, 1])


def test_no_difference_and_no_spread_is_no_certainty() -> None:
    same = np.tile([1.0, 0, 1, 0, 1, 1, 0, 1], (2, 1))
    found = difference([same, same.copy()], 0, 1)
    assert (found.difference, found.p) == (0, 1)
    shifted = difference([same, same + 0.3], 0, 1)
    assert shifted.low < 0.3 < shifted.high and 0 < shifted.p < 0.05


@dataclass(frozen=True)
class Truth:
    """A made-up study: standard deviation between the seeds of each arm, and its seeds."""

    sds: tuple[float, ...]
    seeds: tuple[int, ...]

    def draw(self, rng: np.random.Generator, items: int) -> list[np.ndarray]:
        """Right and wrong answers of every arm, all equally good."""
        ability = rng.normal(0, 1.2, items)
        arms = []
        for sd, count in zip(self.sds, self.seeds):
            own = ability + rng.normal(0, 0.3, items) + rng.normal(0, 5 * sd, (count, 1))
            arms.append((own + rng.normal(0, 0.8, (count, items)) > 0).astype(float))
        return arms


@pytest.mark.parametrize(
    "truth",
    [
        Truth((0.03,) * 6, (3,) + (2,) * 5),
        Truth((0.01,) + (0.05,) * 5, (3,) + (2,) * 5),
        Truth((0.01, 0.05), (5, 5)),
    ],
    ids=["alike", "the base case varies less", "two arms"],
)
def test_settings_that_are_alike_seldom_differ(truth: Truth) -> None:
    """At most 5 % of false verdicts, within the error of the simulation; `benchmarks/truth.py` is longer."""
    rng, wrong, tests = np.random.default_rng(3), 0, 0
    for _ in range(150):
        arms = truth.draw(rng, 200)
        for other in range(1, len(arms)):
            wrong += difference(arms, 0, other).p < 0.05
            tests += 1
    assert wrong / tests <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
