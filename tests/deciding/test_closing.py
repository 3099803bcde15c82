"""The chance that a question closes: against the power of a fresh design, and against what follows from the data."""

from dataclasses import replace

import numpy as np
import pytest

from loragrid.deciding.closing import ArmSeeds, Case, Effect, Noise, Rule, SpreadBelief, closing_chance
from loragrid.statistics.design_power import Design, NoiseVariances, power_of

SPREAD = 0.03**2
SURE = SpreadBelief(SPREAD, 1e6, shared=True)


def arm(before: int, after: int, *, weight: float = 1.0, spread: SpreadBelief = SURE) -> ArmSeeds:
    """An arm whose seeds so far vary as much as they should."""
    return ArmSeeds(weight, before, after, spread.variance * max(before - 1, 0), spread)


def case(before: int, after: int, **changes) -> Case:
    """Two arms of the same number of seeds, six others, 400 items of which 0.1 varies under every seed."""
    made = Case(
        estimate=None,
        effect=Effect(0.1, 1e-6),
        noise=Noise(item=0.1, item_seed=0.0, units=400),
        units_after=400,
        arms=(arm(before, after), arm(before, after)),
        others=(arm(3, 3, weight=0.0),) * 6,
    )
    return replace(made, **changes)


PROOF = Rule(level=0.01, alpha=0.05, margin=None)


@pytest.mark.parametrize("seeds, effect", [(2, 0.12), (3, 0.1), (3, 0.15), (5, 0.07), (8, 0.03)])
def test_without_results_it_is_the_power_of_the_design(seeds: int, effect: float) -> None:
    fresh = case(0, seeds, effect=Effect(effect, 1e-6), others=(arm(0, 3, weight=0.0),) * 6)
    design = Design(400, (seeds, seeds), (3,) * 6, PROOF.level)
    wanted = power_of(design, NoiseVariances(0.1, SPREAD, 0.0), effect)
    assert closing_chance(fresh, PROOF) == pytest.approx(wanted, abs=0.05)


def test_one_seed_closes_nothing() -> None:
    assert closing_chance(case(1, 1, estimate=0.9), PROOF) == 0.0


def test_what_was_measured_counts() -> None:
    belief = Effect(0.0, 0.1)
    promising, hopeless = (case(2, 4, estimate=found, effect=belief) for found in (0.12, 0.01))
    assert closing_chance(promising, PROOF) > closing_chance(hopeless, PROOF) + 0.4


def test_seeds_help_until_the_items_are_what_is_missing() -> None:
    chances = [closing_chance(case(2, after, estimate=0.05, effect=Effect(0, 0.1)), PROOF) for after in (3, 5, 13)]
    assert chances == sorted(chances)
    few = case(2, 40, estimate=0.05, effect=Effect(0, 0.1), noise=Noise(0.3, 0.0, 100), units_after=100)
    assert closing_chance(few, PROOF) < 0.5 < closing_chance(replace(few, units_after=1600), PROOF)


def test_an_interval_within_the_margin_closes_it_too() -> None:
    rule = replace(PROOF, margin=0.05)
    same = case(2, 30, estimate=0.0, effect=Effect(0, 0.05), units_after=1600)
    assert closing_chance(same, PROOF) < 0.5 and closing_chance(same, rule) > 0.9
    # A loss has to be excluded on one side only, so a gain closes that question.
    gain = case(2, 5, estimate=0.1, effect=Effect(0, 0.1))
    assert closing_chance(gain, replace(rule, one_sided=True)) > 0.95


def test_a_large_own_spread_of_an_arm_needs_more_seeds() -> None:
    wide = SpreadBelief(25 * SPREAD, 6, shared=False)
    usual = case(2, 3, estimate=0.15, effect=Effect(0, 0.2))
    one = replace(usual, arms=(arm(2, 3), arm(2, 3, spread=wide)))
    assert closing_chance(one, PROOF) < closing_chance(usual, PROOF) - 0.3


@pytest.mark.parametrize("before, after, growth", [(2, 3, 1), (2, 6, 1), (3, 3, 4), (2, 4, 4)])
def test_two_stages_drawn_one_after_the_other_close_as_often(before: int, after: int, growth: int) -> None:
    """Truths from the belief, first results from each, the chance from these; then the second results, judged."""
    rng = np.random.default_rng(before + 10 * after)
    noise, belief = Noise(item=0.1, item_seed=0.1, units=400), Effect(0.0, 0.08)
    rule = Rule(level=0.01, alpha=0.05, margin=0.05)
    chances, wanted = [], []
    for number in range(120):
        truth = rng.normal(belief.mean, belief.sd)
        error = rng.normal(0, np.sqrt(noise.item / noise.units + 2 * SPREAD / before))
        seen = [replace(arm(before, after), squares=SPREAD * rng.chisquare(before - 1)) for _ in range(2)]
        others = tuple(replace(arm(3, 3, weight=0.0), squares=SPREAD * rng.chisquare(2)) for _ in range(6))
        made = Case(truth + error, belief, noise, noise.units * growth, tuple(seen), others)
        chances.append(closing_chance(made, rule, seed=number))
        # The same from the truth itself, not knowing the first results.
        grown = Noise(noise.item, noise.item_seed, noise.units * growth)
        spread = SpreadBelief(SPREAD - noise.item_seed / 400 * (1 - 1 / growth), 1e6, shared=True)
        arms, rest = (arm(0, after, spread=spread),) * 2, (arm(0, 3, weight=0.0, spread=spread),) * 6
        fresh = Case(None, Effect(truth, 1e-9), grown, grown.units, arms, rest)
        wanted.append(closing_chance(fresh, rule, seed=number))
    assert np.mean(chances) == pytest.approx(np.mean(wanted), abs=0.06)
