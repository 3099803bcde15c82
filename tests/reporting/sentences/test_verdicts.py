"""Words for what a comparison can say: levels, what an interval covers, what a test would find, items, skewness."""

import numpy as np
import pandas as pd
import pytest

from loragrid.reporting.sentences.verdicts import (
    covers_text,
    families_text,
    items_text,
    open_text,
    skew_text,
    task_name,
)

OPEN = {"verdict": "can't tell", "detectable": 0.12, "reference_score": 0.5, "units": 100, "seeds": 2}
NOTHING_FOUND = OPEN | {"detectable": np.nan, "stderr": 0.1}


@pytest.mark.parametrize(
    "row, text",
    [
        (OPEN, "finds 12 points or more"),
        (OPEN | {"verdict": "better"}, ""),
        (OPEN | {"verdict": "adapters differ"}, ""),
        (
            OPEN | {"reference_score": 0.04, "at_floor": True, "at_ceiling": False},
            "finds 12 points or more; a score of 4% leaves no room to show a loss",
        ),
        (
            OPEN | {"reference_score": 0.996, "at_floor": np.False_, "at_ceiling": np.True_},
            "finds 12 points or more; a score of 99.6% leaves no room to show a gain",
        ),
        # A column with gaps holds NaN beside True and False.
        (OPEN | {"at_floor": float("nan"), "at_ceiling": float("nan")}, "finds 12 points or more"),
        (
            NOTHING_FOUND | {"seed_stderr": 0.09},
            "2 seeds cannot prove any difference",
        ),
        (
            NOTHING_FOUND | {"seed_stderr": 0.01, "units": 28},
            "28 independent items cannot prove any difference",
        ),
    ],
)
def test_only_cant_tell_has_a_clause_on_what_the_test_finds(row: dict, text: str) -> None:
    assert open_text(pd.Series(row), "share") == text


def rows(*found: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(found, columns=["level", "covers", "verdict"])


def test_an_interval_says_what_it_covers() -> None:
    alone = "Intervals hold if the same adapters answered other items; another training seed is not in them."
    assert covers_text(rows(("adapters", "items", "adapters differ"))) == alone
    seeds = "Intervals hold for other items and other training seeds."
    assert covers_text(rows(("setting", "items and seeds", "better"))) == seeds
    mixed = covers_text(rows(("setting", "items and seeds", "better"), ("adapters", "items", "can't tell")))
    assert mixed.startswith(seeds) and "Intervals of one seed hold if the same adapters answered" in mixed
    # Two untrained bases have no seed.
    assert covers_text(rows(("setting", "items", "worse"))) == "Intervals hold if the same models answered other items."
    assert covers_text(rows(("adapters", "items", ""))) == ""


@pytest.mark.parametrize(
    "items, total, requests, texts",
    [
        (100, 100, 100, ("100", "")),
        (100, 100, 28, ("100", "28 distinct")),
        (35, 100, 35, ("35 of 100", "")),
        (np.nan, np.nan, np.nan, ("–", "")),
    ],
)
def test_items_and_distinct_requests(items: float, total: float, requests: float, texts: tuple[str, str]) -> None:
    assert items_text({"items": items, "items_total": total, "requests": requests}) == texts


def test_skewness_is_named_where_an_interval_leans_on_it() -> None:
    assert skew_text({"skewed": True, "skewness": 3.14, "units": 40}) == "approximate: skewness 3.1 over 40 units"
    assert skew_text({"skewed": False, "skewness": 3.14, "units": 40}) == ""


def test_names() -> None:
    assert task_name("retention") == "mean retention" and task_name("world_facts") == "world facts"
    sizes = {"exploratory": 21, "target": 7, "retention": 7}
    assert families_text(sizes) == "7 on the main target, 7 on mean retention and 21 exploratory"
    assert families_text({"target": 1}) == "1 on the main target"
