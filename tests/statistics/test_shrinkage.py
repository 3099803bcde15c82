"""The best of several: shrunken by hand, and covered in simulation however the true values lie."""

import numpy as np
import pytest

from loragrid.statistics.shrinkage import best_of, spread_of_truth


def test_equal_errors_by_hand() -> None:
    # Variance 7 of the estimates, 4 of errors: 3 of true values. 4/7 of the way to the mean 10 is left out.
    estimates = 10 + np.sqrt(7 / 1) * np.array([-1.0, 0.0, 1.0])
    found = best_of(estimates, np.full(3, 2.0))
    assert found.index == 2 and found.k == found.contenders == 3
    assert found.spread == pytest.approx(np.sqrt(3), rel=1e-3)
    assert found.value == pytest.approx(10 + 3 / 7 * np.sqrt(7), rel=1e-3)
    # Φ(2.391) = 0.975^(1/3), and the usual 1.96 above.
    assert found.low == pytest.approx(found.raw - 2.391 * 2, abs=0.01)
    assert found.high == pytest.approx(found.raw + 1.96 * 2, abs=0.01)


def test_no_more_spread_than_errors_shrinks_to_the_mean() -> None:
    found = best_of(np.array([0.0, 0.5, 1.0]), np.ones(3))
    assert found.spread == 0 and found.value == pytest.approx(0.5)


def test_one_estimate_is_not_shrunk() -> None:
    found = best_of(np.array([3.0]), np.array([1.0]))
    assert found.value == 3 and found.high - found.low == pytest.approx(2 * 1.96, abs=0.01)


def test_hopeless_estimates_do_not_hide_the_luck_among_the_others() -> None:
    close = np.array([0.5, 0.0, -0.5, 0.2])
    alone, beside = best_of(close, np.ones(4)), best_of(np.append(close, -50.0), np.ones(5))
    assert beside.value == pytest.approx(alone.value) and (beside.k, beside.contenders) == (5, 4)


def test_a_shared_error_selects_none() -> None:
    # All errors shared: what is left are true differences, so nothing is shrunk.
    found = best_of(np.array([1.0, 2.0, 3.0]), np.ones(3), shared=1.0)
    assert found.value == found.raw == 3
    # The interval holds the shared error still.
    assert found.high > found.raw + 1.9


def test_estimates_without_error_have_the_spread_that_they_show() -> None:
    assert spread_of_truth(np.array([1.0, 3.0]), np.zeros(2)) == pytest.approx(np.sqrt(2))
    assert spread_of_truth(np.ones(3), np.zeros(3)) == 0


def test_an_estimate_without_error_among_equal_ones_is_the_centre() -> None:
    found = best_of(np.array([0.0, 1.0]), np.array([0.0, 2.0]))
    assert found.value == pytest.approx(0.0, abs=1e-6) and found.low <= found.value <= found.high


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_eight_settings_are_covered_and_the_bias_is_gone(spread: float) -> None:
    rng = np.random.default_rng(3)
    truth = spread * rng.normal(size=(300, 8))
    found = [best_of(row + rng.normal(size=8), np.ones(8)) for row in truth]
    true = np.array([row[best.index] for row, best in zip(truth, found)])
    covered = np.mean([best.low <= t <= best.high for best, t in zip(found, true)])
    bias, raw = (np.mean([getattr(best, name) for best in found] - true) for name in ("value", "raw"))
    assert covered > 0.95 and abs(bias) < min(0.35, raw)


def test_one_setting_above_equal_ones_is_covered() -> None:
    rng = np.random.default_rng(4)
    truth = np.append(np.zeros(7), 3.0)
    found = [best_of(truth + rng.normal(size=8), np.ones(8)) for _ in range(300)]
    assert np.mean([best.low <= truth[best.index] <= best.high for best in found]) > 0.95
