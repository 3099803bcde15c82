"""From differences to verdicts: correction within families, verdicts, and what could have been found."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.contrasts import SETTING
from loragrid.comparing.measures import Measure
from loragrid.comparing.terms import Terms
from loragrid.statistics.paired_statistics import MCNEMAR, UNSURE, corrected, verdict
from loragrid.statistics.power import detectable_by_t, detectable_in_flips

Row = dict[str, Any]
# Families are corrected by themselves, statements about settings apart from those about adapters.
Family = tuple[str, str]  # level, family
# A mean of n skewed differences is normal enough for a t interval if n exceeds 25 times the squared
# skewness (Cochran 1977, Sampling Techniques, section 2.15).
COCHRANS_FACTOR = 25
# Columns of every judged table, also of one whose rows all lack a test.
COLUMNS = (
    "difference low high p p_corrected improvement stderr seed_stderr df method covers items items_total requests "
    "units detectable at_floor at_ceiling skewness skewed verdict reason"
).split()


def judge(rows: Iterable[Row], measures: Mapping[str, Measure], terms: Terms) -> dict[str, dict[str, int]]:
    """Add verdicts to rows of comparisons, in place; returns level → family → number of tests.

    Rows without a test get the verdict "". One correction per family: one per table would allow a
    false claim per table.
    """
    tested = [row for row in rows if "p" in row]
    for family in {_family(row) for row in tested}:
        members = [row for row in tested if _family(row) == family]
        p = corrected(np.array([row["p"] for row in members]), method=terms.correction)
        for row, value in zip(members, p):
            _judge_row(row, float(value), measures[row["task"]], terms, len(members))
    for row in rows:
        row.setdefault("verdict", "")
    return _sizes(tested)


def _family(row: Row) -> Family:
    return row["level"], row["family"]


def _sizes(tested: list[Row]) -> dict[str, dict[str, int]]:
    sizes: dict[str, dict[str, int]] = {}
    for (level, family), count in sorted(Counter(_family(row) for row in tested).items()):
        sizes.setdefault(level, {})[family] = count
    return sizes


def _judge_row(row: Row, p_corrected: float, measure: Measure, terms: Terms, family: int) -> None:
    sign = 1.0 if measure.higher_is_better else -1.0
    error = row.pop("error")
    row["p_corrected"], row["improvement"] = p_corrected, row["difference"] * sign
    row["verdict"] = verdict(row["improvement"], p_corrected, terms.alpha, of_setting=row["level"] == SETTING)
    row["df"] = error.total_df
    row["seed_stderr"] = float(np.sqrt(error.variances[1:].sum()))
    by_t = row["method"] != MCNEMAR
    row["skewed"] = by_t and row["units"] < COCHRANS_FACTOR * row["skewness"] ** 2
    row["detectable"], row["at_floor"], row["at_ceiling"] = np.nan, False, False
    # Beside a proved difference it would say nothing.
    if row["verdict"] == UNSURE:
        row["detectable"] = _detectable(row, error, measure, terms, family)
        row |= _limits(row, measure, sign)
        if row["at_floor"] and row["at_ceiling"]:
            # What is larger than any change from this reference is no difference to look for.
            row["detectable"] = np.nan
    if measure.unit == "share":
        # No share changes by more than 1, however wide t is with few seeds.
        row["low"], row["high"] = max(row["low"], -1.0), min(row["high"], 1.0)


def _detectable(row: Row, error: Any, measure: Measure, terms: Terms, family: int) -> float:
    """The row's smallest detectable difference; NaN where its test cannot reach the level."""
    # The worst case: the level of Holm's first step (Bonferroni), the strictest of all.
    alpha = terms.alpha / family
    if row["least_p"] >= alpha:
        return np.nan
    if row["binary"]:
        contrary = int(row["contrary"])
        return detectable_in_flips(items=row["items"], contrary=contrary, alpha=alpha, power=terms.power)
    units = row["units"] if measure.unit == "share" else None
    found = detectable_by_t(error, alpha=alpha, power=terms.power, difference=row["difference"], units=units)
    # No share changes by more than 1.
    return found if units is None or found <= 1 else np.nan


def _limits(row: Row, measure: Measure, sign: float) -> dict[str, bool]:
    """Whether the reference is so near 0 (or 1) that a fall (or rise) could not be found however large."""
    if measure.unit != "share":
        return {}
    # What cannot be found at all is larger than any room.
    needed = row["detectable"] if np.isfinite(row["detectable"]) else 1.0
    down, up = row["reference_score"], 1 - row["reference_score"]
    return {"at_floor": down < needed, "at_ceiling": up < needed}


def as_table(rows: list[Row]) -> pd.DataFrame:
    """The rows as a table that has every column of `COLUMNS`."""
    table = pd.DataFrame(rows)
    for column in COLUMNS:
        if column not in table and len(table):
            table[column] = np.nan
    return table.drop(columns=[name for name in ("contrary", "error") if name in table])
