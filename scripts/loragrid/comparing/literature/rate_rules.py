"""Rules on the best learning rate, by the held-out loss of all seeds of a setting."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from loragrid.comparing.literature.study_cells import (
    AGREES,
    DISAGREES,
    NOT_TESTED,
    RuleResult,
    StudyCells,
    needs_second_seed,
)
from loragrid.records.outcomes import Outcome
from loragrid.statistics.paired_statistics import UNSURE
from loragrid.statistics.seed_spread import SeedSpread, seed_spreads
from loragrid.study.cell_pairs import place_of
from loragrid.study.grid import ARMS

Rule = dict[str, Any]
# Learning rate → final held-out losses, one per seed.
Losses = Mapping[float, list[float]]


@dataclass(frozen=True)
class BestRate:
    """The rate with the lowest mean loss; `clear` if no other rate could be the best under other seeds."""

    rate: float
    clear: bool


def same_best_rate(rule: Rule, cells: StudyCells) -> RuleResult:
    """Whether the learning rate with the lowest held-out loss is the same at every axis value.

    Needs at least two rates at each value, two seeds of each, and one alpha at every value: the
    adapter's factor is alpha/rank, and one that does not shrink with the rank changes the best rate.
    """
    axis = rule["axis"]
    runs = [run for run in cells.outcomes if final_loss(run) is not None and not set(run.cell.arm) & set(ARMS)]
    tested = _losses_by_rate(runs, axis)
    if not tested:
        return NOT_TESTED, {"code": "needs_rates_at_each_value", "axis": axis}
    if len({run.cell.settings.alpha for run in runs if set(run.cell.arm) <= {axis, "learning_rate"}}) > 1:
        return NOT_TESTED, {"code": "needs_one_alpha", "axis": axis}
    lines = {(place, value): rates for place, values in tested.items() for value, rates in values.items()}
    if any(has_one_seed(rates) for rates in lines.values()):
        return needs_second_seed(axis)
    best = best_rates(lines, cells.judged.terms.alpha)
    same = all(len({best[place, value].rate for value in values}) == 1 for place, values in tested.items())
    clear = all(found.clear for found in best.values())
    named = [{"value": value, "learning_rate": found.rate} for (_, value), found in best.items()]
    why = {"code": "best_rates", "axis": axis, "best": named, "clear": clear}
    if not clear:
        return UNSURE, why
    return (AGREES if same else DISAGREES), why


def _losses_by_rate(runs: list[Outcome], axis: str) -> dict[Any, dict[Any, dict[float, list[float]]]]:
    """Combination of the other settings → axis value → learning rate → losses.

    Only combinations with two values or more, each with two rates or more.
    """
    groups: dict[Any, dict[Any, dict[float, list[float]]]] = {}
    for run in runs:
        place = place_of(run.cell.arm, axis, "learning_rate")
        rates = groups.setdefault(place, {}).setdefault(getattr(run.cell.settings, axis), {})
        rates.setdefault(run.cell.settings.learning_rate, []).append(final_loss(run))
    several = {
        place: {value: rates for value, rates in values.items() if len(rates) > 1} for place, values in groups.items()
    }
    return {place: values for place, values in several.items() if len(values) > 1}


def has_one_seed(rates: Losses) -> bool:
    """Whether a rate was trained under one seed only."""
    return any(len(losses) < 2 for losses in rates.values())


def best_rates(lines: Mapping[Any, Losses], alpha: float) -> dict[Any, BestRate]:
    """The best rate of each line of rates, all with two seeds; together they are unclear with chance `alpha`."""
    scores = {(line, rate): np.array(losses) for line, rates in lines.items() for rate, losses in rates.items()}
    spreads = seed_spreads(scores)
    pairs = sum(len(rates) - 1 for rates in lines.values())
    best = {}
    for line, rates in lines.items():
        means = {rate: float(np.mean(losses)) for rate, losses in rates.items()}
        rate = min(means, key=means.get)
        own = (means[rate], len(rates[rate]), spreads[line, rate])
        others = [(means[other], len(rates[other]), spreads[line, other]) for other in rates if other != rate]
        best[line] = BestRate(rate, all(_is_above(other, own, alpha / pairs) for other in others))
    return best


def _is_above(other: tuple[float, int, SeedSpread], best: tuple[float, int, SeedSpread], level: float) -> bool:
    """Whether a mean loss is above the best one by more than their seeds explain."""
    from scipy.stats import t as student

    (high, high_seeds, high_spread), (low, low_seeds, low_spread) = other, best
    stderr = (high_spread.variance / high_seeds + low_spread.variance / low_seeds) ** 0.5
    df = min(high_spread.df, low_spread.df)
    return high - low > student.isf(level / 2, df) * stderr


def final_loss(outcome: Outcome) -> float | None:
    """The final held-out loss of a finished run; one that diverged has none."""
    record = outcome.record
    if outcome.cell is None or record is None or record.status != "finished":
        return None
    return record.final_heldout_loss
