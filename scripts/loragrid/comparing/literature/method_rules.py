"""Rules that compare two training methods, each at its own best learning rate.

A rate that suits an adapter is too high for the weights themselves, so methods at one rate would be
compared at a rate that is wrong for one of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from loragrid.comparing.comparisons import settings_of, side_of
from loragrid.comparing.contrasts import SETTING, contrast_row
from loragrid.comparing.literature.rate_rules import best_rates, final_loss, has_one_seed
from loragrid.comparing.literature.study_cells import (
    AGREES,
    DISAGREES,
    NOT_TESTED,
    RuleResult,
    StudyCells,
    needs_second_seed,
)
from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.comparing.verdicts import judge
from loragrid.records.outcomes import Outcome
from loragrid.statistics.paired_statistics import BETTER, UNSURE, WORSE
from loragrid.study.methods import ADAPTER_SETTINGS, METHODS

Rule = dict[str, Any]
# Learning rate → the runs of a method at this rate, one per seed.
Runs = dict[float, list[Outcome]]


def rate_ratio(rule: Rule, cells: StudyCells) -> RuleResult:
    """Whether one method's best rate is about `ratio` times the other's: within a factor of √10.

    A best rate counts if it is clearly the best and neither the lowest nor the highest that was tried.
    """
    found = [_runs_of(method, cells.outcomes) for method in (rule["value"], rule["than"])]
    if any(len(runs) < 3 for runs in found):
        return NOT_TESTED, {"code": "needs_rates_of_methods", "methods": [rule["value"], rule["than"]]}
    lines = {
        method: {rate: [final_loss(run) for run in seeds] for rate, seeds in runs.items()}
        for method, runs in zip((rule["value"], rule["than"]), found)
    }
    if any(has_one_seed(rates) for rates in lines.values()):
        return needs_second_seed("method")
    best = best_rates(lines, cells.judged.terms.alpha)
    at_edge = [method for method, rates in lines.items() if best[method].rate in (min(rates), max(rates))]
    named = [{"value": method, "learning_rate": found.rate} for method, found in best.items()]
    clear = all(found.clear for found in best.values())
    why = {"code": "best_rates", "axis": "method", "best": named, "clear": clear}
    if not clear:
        return UNSURE, why
    if at_edge:
        return UNSURE, why | {"code": "best_rate_at_edge", "methods": at_edge}
    ratio = best[rule["value"]].rate / best[rule["than"]].rate
    close = 10**-0.5 <= ratio / rule["ratio"] <= 10**0.5
    return (AGREES if close else DISAGREES), why


def keeps_more(rule: Rule, cells: StudyCells) -> RuleResult:
    """Whether one method is proved above the other in pooled retention, each at its rate of the lowest loss."""
    methods = rule["value"], rule["than"]
    found = [_runs_of(method, cells.outcomes) for method in methods]
    measure = next((m for m in cells.judged.measures if m.name == POOLED_RETENTION), None)
    if not all(found) or measure is None:
        return NOT_TESTED, {"code": "needs_methods", "methods": list(methods)}
    one, other = (_at_best_rate(runs) for runs in found)
    row = contrast_row(measure, [[side_of(other, -1.0), side_of(one, 1.0)]], cells.judged.spreads, cells.judged.terms)
    # One question by itself, outside the families of the study's own comparisons.
    judge([row], {measure.name: measure}, cells.judged.terms)
    rates = [runs[0].cell.settings.learning_rate for runs in (one, other)]
    if row["verdict"] == "":
        return UNSURE, {"code": "not_compared", "row": row}
    if row["level"] != SETTING:
        return needs_second_seed("method")
    names = ("difference", "low", "high", "verdict")
    why = {"code": "methods_at_best_rates", "methods": list(methods), "rates": rates} | {n: row[n] for n in names}
    return {BETTER: AGREES, WORSE: DISAGREES}.get(row["verdict"], UNSURE), why


def _runs_of(method: str, outcomes: Sequence[Outcome]) -> Runs:
    """A method's scored runs by learning rate, in all else like the base case."""
    case = next((o.cell for o in outcomes if o.kind == "run" and o.cell and not o.cell.arm), None)
    if case is None:
        return {}
    free = {"method", "learning_rate", "seed"} | (ADAPTER_SETTINGS - METHODS[method].settings)
    found: Runs = {}
    for runs in settings_of(list(outcomes)):
        cell = runs[0].cell
        if runs[0].kind != "run" or cell.settings.method != method or any(final_loss(run) is None for run in runs):
            continue
        departs = {name for name, value in cell.identity.items() if value != case.identity.get(name)}
        if departs <= free:
            found.setdefault(cell.settings.learning_rate, runs)
    return found


def _at_best_rate(runs: Runs) -> list[Outcome]:
    return min(runs.values(), key=lambda seeds: float(np.mean([final_loss(run) for run in seeds])))
