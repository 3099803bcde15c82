"""The header of a call, and the seconds of its jobs by the plan."""

from pathlib import Path

import pytest

from loragrid.planning.plan_rows import plan_row
from loragrid.study.study_file import Study, load_study
from loragrid.workflow.terminal import header
from loragrid.workflow.terminal.header import plan_call


@pytest.fixture(scope="module")
def demo() -> Study:
    return load_study("demo")


def all_jobs(study: Study) -> list[tuple[str, str]]:
    runs = [cell.run for cell in study.cells]
    named = [("train", run) for run in runs] + [("score", run) for run in runs]
    return [*named, *(("score_base", base) for base in study.bases), ("report", ""), ("all", "")]


def test_the_header_says_what_how_many_runs_and_how_long(demo: Study, tmp_path: Path) -> None:
    plan = plan_call(demo, all_jobs(demo), results=tmp_path, session_minutes=None)
    first, what, do, where = plan.header
    assert first == f"demo: {demo.title}"
    assert what == "10 runs of 2 base models (llama-s, llama-m), scored on 5 tasks"
    assert do.startswith("23 jobs to do; by the plan they take about ")
    assert where.startswith(f"logs: {tmp_path}/logs/ | Ctrl-C pauses") and plan.unshown == 1
    assert plan.planned_seconds.keys() == set(all_jobs(demo)) - {("all", "")}


def test_finished_runs_are_counted_and_not_planned(demo: Study, tmp_path: Path) -> None:
    jobs = [("score", demo.cells[0].run), ("all", "")]
    plan = plan_call(demo, jobs, results=tmp_path, session_minutes=None)
    assert plan.header[2].startswith("1 job to do (0 of 10 runs to train); by the plan")


def test_an_unknown_length_is_absent(demo: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(inputs: object, cell: object) -> dict:
        return plan_row(inputs, cell) | {"train_hours": None}

    monkeypatch.setattr(header, "plan_row", row)
    plan = plan_call(demo, all_jobs(demo), results=tmp_path, session_minutes=None)
    assert plan.header[2] == "23 jobs to do"


def test_a_call_of_only_the_plan_has_no_jobs_to_show(demo: Study, tmp_path: Path) -> None:
    plan = plan_call(demo, [("plan", "")], results=tmp_path, session_minutes=None)
    assert not plan.jobs and plan.unshown == 1
