"""What a comparison can say, in words: about settings, about two adapters, or nothing yet.

"Better" and "worse" are words for settings, which were trained under two seeds or more. Of two adapters
the page says that they differ, on items like these.
"""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.contrasts import ADAPTERS, OTHER_ITEMS, OTHER_ITEMS_AND_SEEDS, SETTING
from loragrid.comparing.measures import EXPLORATORY, POOLED_RETENTION, RETENTION, TARGET
from loragrid.formatting import detectable, listed, number, plain_name, plural, score, whole
from loragrid.statistics.paired_statistics import BETTER, DIFFER, UNSURE, WORSE

PROVED = (BETTER, WORSE)
# How every page names the mean over the retention tasks that are shares.
POOLED_NAME = "mean retention"
# Family → heading of its rows in a table.
FAMILY_HEADINGS = {
    TARGET: "Main target",
    RETENTION: "Retention, mean over its tasks",
    EXPLORATORY: "Exploratory: single tasks and other measures",
}
FAMILY_WORDS = {TARGET: "on the main target", RETENTION: "on mean retention", EXPLORATORY: "exploratory"}
# What an interval of two adapters leaves out, as a clause after it.
ONE_SEED_COVERS = "if the same adapter answered other items; another training seed is not in it"


def of_settings(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that speak of settings."""
    return rows[rows["level"] == SETTING]


def of_adapters(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that speak of two adapters only."""
    return rows[rows["level"] == ADAPTERS]


def proved(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows in which a setting is better or worse."""
    return rows[rows["verdict"].isin(PROVED)]


def differing(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows in which two adapters differ."""
    return rows[rows["verdict"] == DIFFER]


def task_name(task: str) -> str:
    """A task as the page names it; pooled retention by what it is."""
    return POOLED_NAME if task == POOLED_RETENTION else plain_name(task)


def families_text(sizes: Mapping[str, int]) -> str:
    """The comparisons of each family: 7 on the main target, 7 on mean retention and 21 exploratory."""
    return listed([f"{whole(sizes[family])} {words}" for family, words in FAMILY_WORDS.items() if sizes.get(family)])


def covers_text(rows: pd.DataFrame) -> str:
    """What the intervals of these rows hold for, as sentences."""
    tested = rows[rows["verdict"] != ""]
    found = []
    if (tested["covers"] == OTHER_ITEMS_AND_SEEDS).any():
        found.append("Intervals hold for other items and other training seeds.")
    if (of_adapters(tested)["covers"] == OTHER_ITEMS).any():
        start = "Intervals of one seed" if found else "Intervals"
        found.append(f"{start} hold if the same adapters answered other items; another training seed is not in them.")
    if (of_settings(tested)["covers"] == OTHER_ITEMS).any() and not found:
        found.append("Intervals hold if the same models answered other items.")
    return " ".join(found)


def items_text(row: Mapping[str, Any]) -> tuple[str, str]:
    """On how many items a comparison stands, and a remark: items that are missing, requests that repeat."""
    if not _is_number(row.get("items")):
        return "–", ""
    items, total, requests = (int(row[name]) for name in ("items", "items_total", "requests"))
    text = whole(items) if items == total else f"{whole(items)} of {whole(total)}"
    return text, f"{whole(requests)} distinct" if requests < items else ""


def open_text(row: Mapping[str, Any], unit: str) -> str:
    """A clause beside "can't tell": the smallest difference that the test finds, or why it finds none."""
    if row["verdict"] != UNSURE:
        return ""
    if not _is_number(row.get("detectable")):
        return f"{_too_few(row)} cannot prove any difference"
    text = f"finds {detectable(row['detectable'], unit)} or more"
    limits = floor_text(row, unit)
    return f"{text}; {limits}" if limits else text


def floor_text(row: Mapping[str, Any], unit: str) -> str:
    """Which direction a reference near 0 or 1 hides, as a clause; empty if it hides none."""
    hidden = [what for limit, what in (("at_floor", "loss"), ("at_ceiling", "gain")) if _is_true(row.get(limit))]
    if not hidden or unit != "share":
        return ""
    reference = row["reference_score"]
    # 0.4 % and 99.6 % would round to the very ends.
    places = 1 if 0 < min(reference, 1 - reference) < 0.01 else 0
    return f"a score of {score(reference, 'share', places)} leaves no room to show a {listed(hidden, 'or')}"


def _too_few(row: Mapping[str, Any]) -> str:
    """What this design has too few of: seeds if most of the error is theirs, else items."""
    of_seeds = row.get("seed_stderr")
    if _is_number(of_seeds) and _is_number(row.get("stderr")) and 2 * of_seeds**2 > row["stderr"] ** 2:
        seeds = row.get("seeds")
        return plural(int(seeds), "seed") if _is_number(seeds) else "so few seeds"
    return plural(int(row["units"]), "independent item")


def skew_text(row: Mapping[str, Any]) -> str:
    """A remark on an interval that leans on more symmetry than the differences have; empty if it does not."""
    if not _is_true(row.get("skewed")):
        return ""
    return f"approximate: skewness {number(row['skewness'], 2)} over {plural(int(row['units']), 'unit')}"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _is_true(value: Any) -> bool:
    # A column with gaps holds NaN beside True and False.
    return isinstance(value, bool | np.bool_) and bool(value)
