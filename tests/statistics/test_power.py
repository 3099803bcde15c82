"""Stated power against simulated power: of pairs of adapters, and of designs with seeds."""

import math

import numpy as np
import pytest

from loragrid.statistics.design_power import Design, NoiseVariances, pass_probability, power_of, smallest_difference
from loragrid.statistics.paired_statistics import compare_paired
from loragrid.statistics.power import detectable_by_t, detectable_in_flips
from loragrid.statistics.setting_contrasts import ErrorParts
from loragrid.statistics.sign_flips import Draws


def found_flips(difference: float, *, against: float, items: int, alpha: float) -> float:
    """How often the exact test finds a difference, by simulation."""
    rng = np.random.default_rng(8)
    share = [against + difference, against, 1 - 2 * against - difference]
    moves = rng.choice([1, -1, 0], size=(2000, items), p=share)
    found = compare_paired((moves < 0) * 1.0, (moves > 0) * 1.0, confidence=0.95, draws=Draws(100, seed=1))
    return float(((found.p < alpha) & (found.difference > 0)).mean())


def test_contrary_flips_are_kept() -> None:
    """8 of 100 items flip each way without any difference: a share of 19 points is not found in four of five cases."""
    least = detectable_in_flips(items=100, contrary=8, alpha=0.05 / 40, power=0.8)
    assert 0.76 <= found_flips(least, against=0.08, items=100, alpha=0.05 / 40) <= 0.84
    assert least > 0.25
    assert found_flips(0.19, against=0.08, items=100, alpha=0.05 / 40) < 0.6


def test_flips_on_every_other_item_hide_any_difference() -> None:
    assert math.isnan(detectable_in_flips(items=20, contrary=10, alpha=0.001, power=0.8))


def test_a_difference_adds_to_its_own_error() -> None:
    error = ErrorParts(np.array([0.0004]), np.array([99.0]))
    plain = detectable_by_t(error, alpha=0.05, power=0.8, difference=0.0, units=None)
    share = detectable_by_t(error, alpha=0.05, power=0.8, difference=0.0, units=100)
    assert share == pytest.approx(2.83 * math.sqrt(0.0004 + share * (1 - share) / 100), rel=0.01)
    assert share > plain


NOISE = NoiseVariances(item=0.1, seed=0.03**2, item_seed=0.1)


def test_power_grows_with_seeds_items_and_the_level() -> None:
    design = Design(items=200, seeds=(3, 3), other_seeds=(3, 3, 3), level=0.01)
    power = power_of(design, NOISE, 0.12)
    assert power < power_of(Design(200, (5, 5), (5, 5, 5), 0.01), NOISE, 0.12)
    assert power < power_of(Design(800, (3, 3), (3, 3, 3), 0.01), NOISE, 0.12)
    assert power < power_of(Design(200, (3, 3), (3, 3, 3), 0.05), NOISE, 0.12)
    assert power_of(Design(200, (3, 1), (3, 3, 3), 0.05), NOISE, 0.5) == 0.0


def test_a_single_item_finds_nothing() -> None:
    """Its spread cannot be measured."""
    design = Design(items=1, seeds=(3, 3), other_seeds=(), level=0.05)
    assert power_of(design, NOISE, 0.9) == pass_probability(design, NOISE, 0.9) == 0.0
    assert math.isnan(smallest_difference(design, NOISE, power=0.8))


def test_the_smallest_difference_has_the_stated_power() -> None:
    design = Design(items=200, seeds=(3, 3), other_seeds=(3, 3, 3, 3), level=0.05)
    least = smallest_difference(design, NOISE, power=0.8)
    assert power_of(design, NOISE, least, seed=1) == pytest.approx(0.8, abs=0.03)
    # Two arms of two seeds are never pooled; nothing is proved with one degree of freedom.
    assert math.isnan(smallest_difference(Design(100, (2, 2), (), 0.01), NOISE, power=0.8))


def test_an_unchanged_model_passes_more_often_with_more_items() -> None:
    few = pass_probability(Design(100, (3,), (3, 3, 3), 0.05), NOISE, 0.05)
    many = pass_probability(Design(2000, (3,), (3, 3, 3), 0.05), NOISE, 0.05)
    assert few < 0.3 < many
