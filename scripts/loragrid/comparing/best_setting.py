"""The largest gain of all settings, shrunk for having been chosen as the largest."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from loragrid.comparing.contrasts import ADAPTERS, SETTING
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.terms import Terms
from loragrid.statistics.clustered_means import units_of
from loragrid.statistics.shrinkage import best_of

Row = dict[str, Any]


def best_setting(rows: Sequence[Row], table: ItemTable | None, terms: Terms) -> Row | None:
    """The setting that gained most over its base on the main target, of the settings in `rows`.

    `rows` are comparisons on the task of `table`. Only settings with two seeds compete, if there are
    any; else adapters do, and `level` says so. `raw` is the measured gain, positive where it is good,
    `value` the gain without the luck of the choice, `low` to `high` its interval; `k` is the number of
    settings. None where nothing was compared.
    """
    tested = [row for row in rows if row["verdict"]]
    settings = [row for row in tested if row["level"] == SETTING]
    rows = settings or tested
    if table is None or not rows:
        return None
    gains, stderrs = (np.array([row[name] for row in rows], float) for name in ("improvement", "stderr"))
    # The fewest degrees of freedom: the interval must hold for whichever setting was chosen.
    df = float(min(row["df"] for row in rows))
    shared = shared_variance(rows, table) if len(rows) > 1 else 0.0
    shared = min(shared, float((stderrs**2).min()))
    found = best_of(gains, stderrs, df=df, shared=shared, confidence=terms.confidence)
    chosen = rows[found.index]
    head = {name: chosen[name] for name in ("run", "runs", "seeds", "base", "task")}
    numbers = {name: value for name, value in asdict(found).items() if name != "index"}
    if len(rows) == 1 and math.isfinite(chosen["low"]):
        # Nothing was chosen, so its own interval holds; it weighs the few seeds of each arm apart.
        sign = 1 if chosen["improvement"] == chosen["difference"] else -1
        numbers["low"], numbers["high"] = sorted((sign * chosen["low"], sign * chosen["high"]))
    if table.unit == "share":
        # Like every other interval: a share cannot change by more than 1.
        numbers["low"], numbers["high"] = max(numbers["low"], -1.0), min(numbers["high"], 1.0)
    return head | {"level": SETTING if settings else ADAPTERS} | numbers


def shared_variance(rows: Sequence[Row], table: ItemTable) -> float:
    """The variance that the gains have in common: that of their base, and of items that suit every setting.

    The mean covariance between pairs of settings over the items that all of them have; not negative.
    """
    changes = np.array([_change(row, table) for row in rows])
    mask = ~np.isnan(changes.sum(axis=0))
    changes = changes[:, mask]
    weights = table.weights_of(rows[0]["base"], mask)
    weights = np.ones(int(mask.sum())) if weights is None else weights
    units = units_of(changes, weights, table.clusters_of(mask))
    count = len(units.sizes)
    if count < 2:
        return 0.0
    total = units.sizes.sum()
    influence = (units.sums - units.sums.sum(axis=1, keepdims=True) / total * units.sizes) / total
    covariance = influence @ influence.T * count / (count - 1)
    pairs = len(rows) * (len(rows) - 1)
    return max(0.0, float(covariance.sum() - np.trace(covariance)) / pairs)


def _change(row: Row, table: ItemTable) -> np.ndarray:
    """Item values of a setting, averaged over its seeds, minus its base's."""
    return np.mean([table.values[run] for run in row["runs"].split()], axis=0) - table.values[row["base"]]
