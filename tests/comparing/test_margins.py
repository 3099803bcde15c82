"""What the margin of shipping demands: the chance of an unchanged model to pass, and what is enough for 80 %."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from loragrid.comparing.margins import margin_demands
from loragrid.comparing.terms import Terms
from loragrid.statistics.design_power import Design, NoiseVariances, pass_probability

TERMS = Terms("holm", 0.05, 0.8, 2000, 1, retention_margin=0.05)
NOISE = {"item_variance": 0.2, "seed_variance": 0.0004, "item_seed_variance": 0.1}


def judged(count: int = 6, **changes) -> SimpleNamespace:
    """Settings' rows on pooled retention, of 300 items and three seeds."""
    row = {"task": "retention", "level": "setting", "verdict": "can't tell", "units": 300, "seeds": 3, "stderr": 0.03}
    rows = [row | NOISE | changes | {"run": f"run {number}"} for number in range(count)]
    return SimpleNamespace(comparisons=pd.DataFrame(rows), terms=TERMS)


def chance(items: int, seeds: int, others: int = 5) -> float:
    design = Design(items=items, seeds=(seeds,), other_seeds=(seeds,) * others, level=0.05)
    return pass_probability(design, NoiseVariances(*NOISE.values()), 0.05)


def test_the_chance_and_the_fewest_items_and_seeds_that_are_enough() -> None:
    found = margin_demands(judged())
    assert (found["items"], found["seeds"], found["at_least"]) == (300, 3, False)
    assert found["pass_if_unchanged"] == pytest.approx(chance(300, 3)) and 0.2 < found["pass_if_unchanged"] < 0.8
    needed = found["items_needed"]
    assert chance(needed - 1, 3) < 0.8 <= chance(needed, 3)
    assert 300 < found["items_at_twice_the_seeds"] < needed
    # The spread over items alone is too wide here, whatever the seeds.
    assert found["seeds_needed"] is None and chance(300, 20) < 0.8


def test_what_no_number_of_items_mends_is_none() -> None:
    found = margin_demands(judged(seed_variance=0.01))
    assert found["pass_if_unchanged"] < 0.2 and found["items_needed"] is None


def test_with_one_seed_nothing_passes_and_items_alone_demand_so_many() -> None:
    found = margin_demands(judged(level="adapters", seeds=1))
    assert (found["pass_if_unchanged"], found["seeds"], found["at_least"]) == (0.0, 1, True)
    # The variance over items is known from the adapters; that between seeds is not, and left out.
    least = NoiseVariances(0.03**2 * 300, 0.0, 0.0)
    design = Design(items=found["items_needed"], seeds=(2,), other_seeds=(2,) * 5, level=0.05)
    assert pass_probability(design, least, 0.05) >= 0.8


def test_without_pooled_retention_nothing_is_said() -> None:
    assert margin_demands(SimpleNamespace(comparisons=pd.DataFrame(), terms=TERMS)) is None
    assert margin_demands(judged(task="running_plan")) is None
    assert margin_demands(judged(verdict="", stderr=np.nan)) is None
