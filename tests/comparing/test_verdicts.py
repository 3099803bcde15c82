"""From tests to verdicts: families, levels, what could have been found, floors, ceilings, skewness."""

import math

import numpy as np
import pytest

from loragrid.comparing.contrasts import Side, contrast_row
from loragrid.comparing.measures import measures_of
from loragrid.comparing.verdicts import COLUMNS, as_table, judge
from loragrid.statistics.setting_contrasts import ErrorParts
from tests.fixtures.item_tables import TERMS, item_table

EMPTY = np.array([0.0, 1.0])
MEASURES = {
    measure.name: measure
    for measure in measures_of(
        {
            "plan": item_table({"a": EMPTY}, task="plan"),
            "facts": item_table({"a": EMPTY}, task="facts", group="retention"),
            "loss": item_table({"a": EMPTY}, task="loss", unit="plain"),
        },
        "plan",
    )
}


def row(task: str, p: float, *, level: str = "setting", difference: float = 0.1, **changes) -> dict:
    """A tested comparison, by t on 99 degrees of freedom."""
    error = ErrorParts(np.array([0.03**2]), np.array([99.0]))
    known = MEASURES[task].head | {"level": level, "p": p, "difference": difference, "error": error}
    known |= {"low": difference - 0.06, "high": difference + 0.06, "stderr": 0.03, "units": 100, "items": 100}
    known |= {"reference_score": 0.5, "score": 0.5 + difference, "least_p": 0.0, "binary": False, "skewness": 0.0}
    return known | {"method": "t with item and seed variance", "contrary": math.nan} | changes


def judged(*rows: dict) -> list[dict]:
    judge(rows, MEASURES, TERMS)
    return list(rows)


def test_each_family_and_level_is_corrected_for_its_own_number() -> None:
    rows = [row("plan", 0.02), row("plan", 0.02), row("retention", 0.04), row("facts", 0.02), row("loss", 0.9)]
    rows += [row("plan", 0.03, level="adapters")]
    sizes = judge(rows, MEASURES, TERMS)
    assert sizes == {"setting": {"target": 2, "retention": 1, "exploratory": 2}, "adapters": {"target": 1}}
    assert [row["p_corrected"] for row in rows] == pytest.approx([0.04, 0.04, 0.04, 0.04, 0.9, 0.03])
    # Many exploratory comparisons take nothing from the target.
    more = judged(row("plan", 0.04), *[row("facts", 0.5) for _ in range(50)])
    assert more[0]["p_corrected"] == 0.04 and more[0]["verdict"] == "better"


@pytest.mark.parametrize(
    "task, level, difference, p, verdict",
    [
        ("plan", "setting", 0.1, 0.01, "better"),
        ("plan", "setting", -0.1, 0.01, "worse"),
        ("loss", "setting", -0.1, 0.01, "better"),
        ("plan", "setting", 0.1, 0.06, "can't tell"),
        ("plan", "adapters", 0.1, 0.01, "adapters differ"),
        ("plan", "adapters", -0.1, 0.01, "adapters differ"),
        ("loss", "adapters", 0.1, 0.01, "adapters differ"),
        ("plan", "adapters", 0.1, 0.06, "can't tell"),
    ],
)
def test_better_and_worse_are_words_for_settings(task, level, difference, p, verdict: str) -> None:
    (found,) = judged(row(task, p, level=level, difference=difference))
    assert found["verdict"] == verdict
    assert (found["improvement"] > 0) == ((difference > 0) == (task != "loss"))


def test_a_row_without_a_test_takes_no_part() -> None:
    untested = MEASURES["plan"].head | {"level": "setting", "reason": "no_score"}
    found, other = judged(untested, row("plan", 0.04))
    assert found["verdict"] == "" and other["p_corrected"] == 0.04


def test_nothing_is_said_of_detectability_beside_a_proof() -> None:
    proved, unsure = judged(row("plan", 0.001), row("plan", 0.5))
    assert math.isnan(proved["detectable"]) and 0.06 < unsure["detectable"] < 0.2
    assert not proved["at_floor"] and not proved["at_ceiling"]


def test_what_is_detectable_grows_with_the_family() -> None:
    (alone,) = judged(row("plan", 0.5))
    many = judged(*[row("plan", 0.5) for _ in range(20)])
    assert many[0]["detectable"] > alone["detectable"]


@pytest.mark.parametrize(
    "reference, floor, ceiling",
    [(0.5, False, False), (0.04, True, False), (0.97, False, True), (0.0, True, False), (1.0, False, True)],
)
def test_a_base_near_an_end_hides_changes_towards_it(reference: float, floor: bool, ceiling: bool) -> None:
    (found,) = judged(row("plan", 0.5, reference_score=reference))
    assert (found["at_floor"], found["at_ceiling"]) == (floor, ceiling)


def test_where_nothing_can_be_found_both_ends_are_too_near() -> None:
    (found,) = judged(row("plan", 0.5, least_p=0.5))
    assert math.isnan(found["detectable"]) and found["at_floor"] and found["at_ceiling"]
    (loss,) = judged(row("loss", 0.5, least_p=0.5))
    assert not loss["at_floor"] and not loss["at_ceiling"], "a loss has no ends"


def test_a_difference_larger_than_any_change_from_the_reference_is_none_to_look_for() -> None:
    wide = ErrorParts(np.array([0.25**2]), np.array([99.0]))
    (found,) = judged(row("plan", 0.5, error=wide))
    assert math.isnan(found["detectable"]) and found["at_floor"] and found["at_ceiling"]
    (near_an_end,) = judged(row("plan", 0.5, error=wide, reference_score=0.02))
    assert 0.5 < near_an_end["detectable"] < 0.98


def test_no_interval_of_a_share_leaves_what_a_share_can_change_by() -> None:
    ends = {"low": -1.98, "high": 1.2}
    share, loss = judged(row("plan", 0.5, **ends), row("loss", 0.5, **ends))
    assert (share["low"], share["high"]) == (-1, 1) and (loss["low"], loss["high"]) == (-1.98, 1.2)


@pytest.mark.parametrize(
    "skewness, units, method, skewed",
    [
        (0.0, 100, "t over tasks", False),
        (1.9, 100, "t over tasks", False),
        (2.1, 100, "t over tasks", True),
        (-2.1, 100, "t with item and seed variance", True),
        (2.1, 1000, "t with item and seed variance", False),
        # Its interval leans on no t distribution.
        (9.0, 100, "exact McNemar", False),
    ],
)
def test_skewness_is_named_where_a_t_interval_leans_on_it(skewness, units, method: str, skewed: bool) -> None:
    """Cochran's rule: n above 25 times the squared skewness; 25 · 2² = 100."""
    (found,) = judged(row("plan", 0.001, skewness=skewness, units=units, method=method))
    assert found["skewed"] == skewed and found["skewness"] == skewness


def test_the_skewness_of_a_comparison_is_that_of_its_differences() -> None:
    rng = np.random.default_rng(0)
    ease = rng.random(60)
    # A handful of items gained much, the rest nothing: a long tail.
    change = np.where(np.arange(60) < 3, 0.9, 0.01)
    values = {"a0": ease * 0.1, "a1": ease * 0.1, "b0": ease * 0.1 + change, "b1": ease * 0.1 + change}
    (measure,) = measures_of({"plan": item_table(values, task="plan")}, "plan")
    place = [Side(("a0",), -1.0, trained=True), Side(("b0",), 1.0, trained=True)]
    found = contrast_row(measure, [place], {}, TERMS)
    centred = change - change.mean()
    assert found["skewness"] == pytest.approx((centred**3).mean() / (centred**2).mean() ** 1.5)
    judge([found], {"plan": measure}, TERMS)
    assert found["skewed"]


def test_the_table_has_every_column_and_none_of_the_working_ones() -> None:
    table = as_table(judged(row("plan", 0.01), MEASURES["plan"].head | {"level": "setting", "reason": "no_score"}))
    assert set(COLUMNS) <= set(table.columns) and not {"error", "contrary"} & set(table.columns)
    assert {"covers", "requests", "items_total", "skewed", "seed_stderr"} <= set(COLUMNS)
    assert as_table([]).empty
