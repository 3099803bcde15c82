"""One comparison: settings or models against each other on one measure, as a row of a table.

Two adapters can be compared from one seed each: they differ, or not, on items like these. A statement
about a setting needs a second seed in every trained arm, and its error holds the spread between seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.measures import Measure, Spreads
from loragrid.comparing.terms import Terms
from loragrid.statistics import paired_statistics
from loragrid.statistics.paired_statistics import Paired
from loragrid.statistics.power import fewest_units
from loragrid.statistics.setting_contrasts import (
    SEEDS_T,
    Arm,
    ContrastTest,
    ErrorParts,
    ItemPart,
    SeedShare,
    contrast_test,
    item_part,
    satterthwaite,
)

# What a comparison can be about: settings under any seed, or these adapters alone.
SETTING, ADAPTERS = "setting", "adapters"
# Codes of the `covers` column: what the interval would hold for.
OTHER_ITEMS, OTHER_ITEMS_AND_SEEDS = "items", "items and seeds"
# Codes of the `reason` column: why a row has no test. The report words them with the row's numbers.
NO_SCORE = "no_score"  # `unscored` names the subject
TOO_FEW_ITEMS, TOO_FEW_CLUSTERS = "too_few_items", "too_few_clusters"  # `units` is their number
COMBINED_T = "t over tasks"


@dataclass(frozen=True)
class Side:
    """The runs of one setting, one per seed, or one untrained model, with their coefficient in a contrast."""

    subjects: tuple[str, ...]
    coefficient: float
    trained: bool


# Sides that are compared with each other, all else equal; a factorial grid has several such places.
Place = Sequence[Side]


def level_of(places: Sequence[Place]) -> str:
    """`SETTING` if every trained side has two seeds or more, else `ADAPTERS`."""
    trained = [side for place in places for side in place if side.trained]
    return SETTING if all(len(side.subjects) > 1 for side in trained) else ADAPTERS


def contrast_row(measure: Measure, places: Sequence[Place], spreads: Spreads, terms: Terms) -> dict[str, Any]:
    """The columns of a comparison: the mean over places of their sides' scores times coefficients.

    Coefficients of 1 and -1 make it a difference. Without a test the row has a `reason` and no p.
    """
    head = measure.head | {"level": level_of(places)}
    missing = measure.lacks(subject for place in places for side in place for subject in side.subjects)
    if missing is not None:
        return head | {"reason": NO_SCORE, "unscored": missing}
    parts = [_Part.of(table, places) for table in measure.tables]
    head |= {
        "items": sum(part.items for part in parts),
        "items_total": sum(len(part.table.items) for part in parts),
        "requests": sum(part.table.requests_of(part.mask) for part in parts),
    }
    for part in parts:
        units, reason = units_of_items(part.table, part.mask)
        # With so few units even the most extreme outcome is not significant.
        if units < fewest_units(terms.alpha):
            return head | {"units": units, "reason": reason}
    test = _of_settings if head["level"] == SETTING else _of_adapters
    return head | _scores(parts) | test(measure, places, parts, spreads, terms)


def units_of_items(table: ItemTable, mask: np.ndarray) -> tuple[int, str]:
    """The number of independent units among the items, and the reason if they are too few."""
    clusters = table.clusters_of(mask)
    if clusters is None:
        return int(mask.sum()), TOO_FEW_ITEMS
    return len(set(clusters)), TOO_FEW_CLUSTERS


@dataclass(frozen=True)
class _Part:
    """One table's share of a comparison: the items that all runs have, and the sides' mean values on them.

    `before` and `after` (n,) are the sides with negative and with positive coefficients, averaged over
    places; `weights` (n,) make the weighted mean of their difference the mean over the places.
    """

    table: ItemTable
    mask: np.ndarray
    before: np.ndarray
    after: np.ndarray
    weights: np.ndarray | None

    @property
    def items(self) -> int:
        return int(self.mask.sum())

    @classmethod
    def of(cls, table: ItemTable, places: Sequence[Place]) -> "_Part":
        subjects = [subject for place in places for side in place for subject in side.subjects]
        mask = ~np.isnan(np.sum([table.values[subject] for subject in subjects], axis=0))
        sides = {sign: np.array([_signed_mean(table, place, mask, sign) for place in places]) for sign in (-1, 1)}
        if table.weights is None:
            return cls(table, mask, sides[-1].mean(axis=0), sides[1].mean(axis=0), None)
        # Places on different models may weigh the same items differently.
        weights = np.array([table.weights[place[0].subjects[0]][mask] for place in places])
        share = weights / weights.sum(axis=1, keepdims=True)
        whole = share.sum(axis=0)
        before, after = ((share * sides[sign]).sum(axis=0) / whole for sign in (-1, 1))
        return cls(table, mask, before, after, whole)


def _signed_mean(table: ItemTable, place: Place, mask: np.ndarray, sign: int) -> np.ndarray:
    """The sum of the sides of one sign, each averaged over its seeds."""
    total = np.zeros(int(mask.sum()))
    for side in place:
        if side.coefficient * sign > 0:
            total += abs(side.coefficient) * np.mean([table.values[run][mask] for run in side.subjects], axis=0)
    return total


def _scores(parts: Sequence[_Part]) -> dict[str, float]:
    before, after = (
        float(np.mean([np.average(getattr(part, side), weights=part.weights) for part in parts]))
        for side in ("before", "after")
    )
    return {"reference_score": before, "score": after}


def _of_settings(
    measure: Measure, places: Sequence[Place], parts: Sequence[_Part], spreads: Spreads, terms: Terms
) -> dict[str, Any]:
    """The test with the variances of items and seeds."""
    tasks = [item_part(_arms(measure, places, part, spreads), part.table.clusters_of(part.mask)) for part in parts]
    shares = []
    for side in (side for place in places for side in place if side.trained):
        factor = (side.coefficient / len(places)) ** 2 / len(side.subjects)
        shares.append(SeedShare(factor, spreads[measure.name][side.subjects[0]]))
    found = contrast_test(tasks, shares, terms.confidence)
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "stderr": found.stderr,
        "p": found.p,
        "method": SEEDS_T,
        "covers": OTHER_ITEMS_AND_SEEDS if shares else OTHER_ITEMS,
        "units": found.units,
        "binary": False,
        "least_p": 0.0,
        "skewness": max((skewness_of(part) for part in parts), key=abs),
        "error": found.parts,
    } | _noise(found, tasks, sum(share.factor for share in shares))


def _noise(found: ContrastTest, tasks: Sequence[ItemPart], factor: float) -> dict[str, float]:
    """The variances of `NoiseVariances` as columns: another design's error follows from them."""
    columns = {"item_variance": float(found.parts.variances[0]) * found.units}
    if factor == 0:
        return columns | {"seed_variance": 0.0, "item_seed_variance": 0.0}
    with_seed = sum(task.with_seed for task in tasks) / len(tasks) ** 2 / factor
    # The spread between seeds holds both; a variance is not negative.
    seeds = float(found.parts.variances[1:].sum()) / factor - with_seed
    return columns | {"seed_variance": max(seeds, 0.0), "item_seed_variance": with_seed * found.units}


def _arms(measure: Measure, places: Sequence[Place], part: _Part, spreads: Spreads) -> list[Arm]:
    arms = []
    for place in places:
        weights = part.table.weights_of(place[0].subjects[0], part.mask)
        if weights is None:
            weights = np.ones(part.items)
        for side in place:
            values = np.array([part.table.values[subject][part.mask] for subject in side.subjects])
            spread = spreads[measure.name][side.subjects[0]] if side.trained else None
            arms.append(Arm(values, weights, side.coefficient / len(places), spread))
    return arms


def _of_adapters(
    measure: Measure, places: Sequence[Place], parts: Sequence[_Part], spreads: Spreads, terms: Terms
) -> dict[str, Any]:
    """The test of these very adapters: item by item, the seed not counted."""
    found = [
        paired_columns(part.table, part.mask, part.before, part.after[None], part.weights, terms)[0] for part in parts
    ]
    if len(found) == 1:
        return found[0]
    return _combined(found, terms)


def _combined(found: list[dict[str, Any]], terms: Terms) -> dict[str, Any]:
    """The mean difference over tasks whose items are independent, by t after Satterthwaite."""
    variances = np.array([row["stderr"] for row in found]) ** 2 / len(found) ** 2
    df = satterthwaite(variances, np.array([row["error"].df[0] for row in found]))
    error = ErrorParts(np.array([variances.sum()]), np.array([df]))
    difference, stderr = float(np.mean([row["difference"] for row in found])), float(np.sqrt(variances.sum()))
    half = error.quantile(1 - terms.confidence) * stderr
    return found[0] | {
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
        "stderr": stderr,
        "p": error.p_value(difference),
        "method": COMBINED_T,
        "units": sum(row["units"] for row in found),
        "binary": False,
        "least_p": 0.0,
        "skewness": max((row["skewness"] for row in found), key=abs),
        "error": error,
        "contrary": None,
    }


def paired_columns(
    table: ItemTable, mask: np.ndarray, before: np.ndarray, after: np.ndarray, weights: np.ndarray | None, terms: Terms
) -> list[dict[str, Any]]:
    """`after` (R, n) compared with `before` (n,), as R dicts of table columns; `mask` says which items they hold."""
    before = np.broadcast_to(before, after.shape)
    found = paired_statistics.compare_paired(
        before,
        after,
        weights=weights,
        clusters=table.clusters_of(mask),
        confidence=terms.confidence,
        draws=terms.draws,
    )
    return [_paired_row(found, row) for row in range(len(after))]


def _paired_row(found: Paired, row: int) -> dict[str, Any]:
    columns = {name: getattr(found, name)[row] for name in ("difference", "low", "high", "stderr", "p", "method")}
    return columns | {
        "covers": OTHER_ITEMS,
        "units": found.units,
        "binary": found.binary,
        "least_p": found.least_p,
        "skewness": found.skewness[row],
        "contrary": found.contrary[row],
        "error": ErrorParts(np.array([found.test_stderr[row] ** 2]), np.array([found.df])),
    }


def skewness_of(part: _Part) -> float:
    """Skewness of the differences between the sides over a part's items."""
    return paired_statistics.skewness((part.after - part.before)[None])[0]
