"""What the margin of shipping demands: can a model that forgot nothing pass with these items and seeds?

A setting passes if the interval of its pooled retention stays above minus the margin. With few items or
seeds that interval is wider than the margin, and not even an unchanged model passes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from loragrid.comparing.contrasts import SETTING
from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.comparing.study_results import JudgedTables
from loragrid.comparing.terms import Terms
from loragrid.statistics.design_power import Design, NoiseVariances, pass_probability

# Beyond these nobody would run the study; a design that needs more is said to be out of reach.
MOST_SEEDS, MOST_TIMES_THE_ITEMS = 20, 100
FEWEST_SEEDS = 2
# More settings hardly change the degrees of freedom of the shared spread, and cost time.
MOST_OTHERS = 30


@dataclass(frozen=True)
class _Chance:
    """The chance of an unchanged setting to pass, by items and seeds; `others` is the number of other settings."""

    noise: NoiseVariances
    others: int
    terms: Terms

    def of(self, items: int, seeds: int) -> float:
        others = (seeds,) * min(self.others, MOST_OTHERS)
        design = Design(items=items, seeds=(seeds,), other_seeds=others, level=self.terms.alpha)
        return pass_probability(design, self.noise, self.terms.retention_margin)

    def is_enough(self, items: int, seeds: int) -> bool:
        return self.of(items, seeds) >= self.terms.power


def margin_demands(judged: JudgedTables) -> dict[str, Any] | None:
    """The chance of an unchanged model to pass the margin, and what a chance of `terms.power` needs.

    `items` are the independent items of all retention tasks together. `items_needed` holds for the
    study's seeds (two where it has one), `items_at_twice_the_seeds` for twice as many, `seeds_needed`
    for its items; None where no number within reach is enough. With one seed everywhere the spread
    between seeds is unknown: then `pass_if_unchanged` is 0, and the needs are what items alone demand,
    `at_least`. None without pooled retention.
    """
    rows = judged.comparisons
    if rows.empty:
        return None
    rows = rows[(rows["task"] == POOLED_RETENTION) & (rows["verdict"] != "")]
    if rows.empty:
        return None
    settings = rows[rows["level"] == SETTING]
    if settings.empty:
        return _with_one_seed(rows, judged.terms)
    middle = settings.median(numeric_only=True)
    noise = NoiseVariances(middle["item_variance"], middle["seed_variance"], middle["item_seed_variance"])
    chance = _Chance(noise, len(settings) - 1, judged.terms)
    items, seeds = int(middle["units"]), int(middle["seeds"])
    return {"pass_if_unchanged": chance.of(items, seeds), "at_least": False} | _needs(chance, items, seeds)


def _with_one_seed(rows: pd.DataFrame, terms: Terms) -> dict[str, Any]:
    middle = (rows["stderr"] ** 2 * rows["units"]).median()
    chance = _Chance(NoiseVariances(float(middle), 0.0, 0.0), len(rows) - 1, terms)
    needs = _needs(chance, int(rows["units"].median()), FEWEST_SEEDS)
    return {"pass_if_unchanged": 0.0, "at_least": True} | needs | {"seeds": 1}


def _needs(chance: _Chance, items: int, seeds: int) -> dict[str, int | None]:
    most = MOST_TIMES_THE_ITEMS * items
    return {
        "items": items,
        "seeds": seeds,
        "items_needed": _fewest(lambda count: chance.is_enough(count, seeds), 2, most),
        "items_at_twice_the_seeds": _fewest(lambda count: chance.is_enough(count, 2 * seeds), 2, most),
        "seeds_needed": _fewest(lambda count: chance.is_enough(items, count), FEWEST_SEEDS, MOST_SEEDS),
    }


def _fewest(is_enough: Callable[[int], bool], fewest: int, most: int) -> int | None:
    """The smallest count from `fewest` to `most` that is enough, by bisection; None if `most` is not."""
    if not is_enough(most):
        return None
    while fewest < most:
        middle = (fewest + most) // 2
        if is_enough(middle):
            most = middle
        else:
            fewest = middle + 1
    return most
