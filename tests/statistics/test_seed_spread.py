"""The spread between seeds: what is pooled, and what keeps its own."""

import numpy as np
import pytest

from loragrid.statistics.seed_spread import seed_spreads


def scores(*spreads: float, seeds: int = 3) -> dict[str, np.ndarray]:
    """One setting per spread, whose scores have exactly this standard deviation."""
    shape = np.linspace(-1, 1, seeds)
    return {str(place): 0.5 + spread * shape / shape.std(ddof=1) for place, spread in enumerate(spreads)}


def test_settings_that_look_alike_share_one_variance() -> None:
    found = seed_spreads(scores(0.02, 0.03, 0.025, 0.02))
    assert {spread.pooled for spread in found.values()} == {True}
    assert found["0"].df == 8
    assert found["0"].variance == pytest.approx(np.mean(np.square([0.02, 0.03, 0.025, 0.02])))


def test_a_setting_that_varies_more_keeps_its_own_and_leaves_the_pool() -> None:
    found = seed_spreads(scores(0.02, 0.03, 0.025, 0.02, 0.30))
    assert not found["4"].pooled and found["4"].df == 2 and found["4"].variance == pytest.approx(0.09)
    assert found["0"].pooled and found["0"].df == 8 and found["0"].variance < 0.001


@pytest.mark.parametrize(
    "few", [scores(0.02, 0.02, 0.02), scores(0.02, 0.02, 0.02, 0.02, seeds=2)], ids=["arms", "degrees of freedom"]
)
def test_too_few_settings_are_not_pooled(few: dict[str, np.ndarray]) -> None:
    assert not any(spread.pooled for spread in seed_spreads(few).values())


def test_one_seed_has_no_spread() -> None:
    assert seed_spreads({"one": np.array([0.5])}) == {}
    assert set(seed_spreads(scores(0.0, 0.0, 0.0, 0.0) | {"one": np.array([0.5])})) == {"0", "1", "2", "3"}
