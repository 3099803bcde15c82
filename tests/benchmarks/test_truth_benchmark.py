"""The made-up studies of `make truth`: their truth is what they say, and planted effects are judged."""

import numpy as np
import pytest

from benchmarks import truth


def test_answers_have_the_stated_gain_and_spread() -> None:
    rng, world = np.random.default_rng(0), truth.World(seeds=(200,), sds=(0.05,), gains=(0.2,), items=2000)
    table = world.draw(rng)[truth.TASKS[0]]
    scores = np.array([table.values[subject].mean() for subject in world.subjects(0)])
    assert scores.mean() == pytest.approx(0.7, abs=0.02)
    # The slope of the share is smaller at 0.7 than at 0.5, where the spread is stated.
    assert 0.035 < scores.std(ddof=1) < 0.055
    assert table.values["base"].mean() == pytest.approx(0.5, abs=0.04)


def test_stated_variances_are_those_of_the_answers() -> None:
    rng, world = np.random.default_rng(1), truth.World(seeds=(150, 150), sds=(0.0, 0.0), gains=(0.0, 0.0), items=3000)
    table = world.draw(rng)[truth.TASKS[0]]
    a, b = (np.array([table.values[run] for run in world.subjects(arm)]) for arm in (0, 1))
    flips = np.mean([a.var(axis=0).mean(), b.var(axis=0).mean()])
    assert flips == pytest.approx(truth._flip_variance(), rel=0.05)
    over_items = (a.mean(axis=0) - b.mean(axis=0)).var() - 2 * flips / 150
    assert over_items == pytest.approx(truth._item_variance(), rel=0.1)


def test_a_large_planted_gain_is_found_and_nothing_else() -> None:
    world = truth.World(seeds=(3,) * 8, gains=(0.0, 0.35, *(0.0,) * 6))
    study = truth.judged(world, np.random.default_rng(2))
    assert truth._found(study, 0.35)
    assert not study.false("setting", "target")
    share = truth.Share.of("of four", [True, False, True, True], "all")
    assert (share.value, share.error) == (0.75, pytest.approx(np.sqrt(0.75 * 0.25 / 4)))
    assert "75.0 %" in share.line()
