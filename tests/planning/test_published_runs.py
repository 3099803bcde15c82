"""The plan against what public runs printed (benchmarks/published_runs.csv)."""

import pytest

from benchmarks import published
from benchmarks.published import Run, is_fitted, memory_ratio, predicted_seconds, read_runs

RUNS = read_runs()
NO_LENGTH = {"Gemma-3-270m", "FunctionGemma-270m"}


@pytest.mark.parametrize("run", [run for run in RUNS if run.row["peak_reserved_gib"]], ids=lambda run: run.case)
def test_predicted_memory_is_at_least_the_printed_one_and_at_most_a_third_more(run: Run) -> None:
    assert 1.0 <= memory_ratio(run) <= 1.35


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.case)
def test_predicted_time_is_near_the_printed_one(run: Run) -> None:
    if run.case in NO_LENGTH:
        assert predicted_seconds(run) is None
        return
    tolerance = 0.05 if run.row["card"] == "T4" else 0.25
    assert predicted_seconds(run) == pytest.approx(float(run.row["seconds_per_step"]), rel=tolerance)


def test_fewer_runs_are_fitted_than_check_the_memory_and_the_wasted_share_covers_them_all() -> None:
    assert published.least_fragmentation(RUNS) < published.FRAGMENTATION
    checks = [run for run in RUNS if run.row["peak_reserved_gib"] and run.case not in published.MEMORY_FROM]
    assert len(checks) == 11
    assert sum(not is_fitted(run) for run in RUNS if run.case not in NO_LENGTH) == 5


def test_the_page_holds_todays_tables() -> None:
    page = published.PAGE.read_text(encoding="utf-8")
    assert published.page_with_tables(page, RUNS) == page
    assert page.count("| checks |") == 16
