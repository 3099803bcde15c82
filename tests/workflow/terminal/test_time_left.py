"""The time that the rest of a call takes."""

import time

import pytest

from loragrid.workflow.terminal.running_job import RunningJob, duration, short_name
from loragrid.workflow.terminal.time_left import TimeLeft


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)


def running(rule: str, name: str, *, since: float) -> RunningJob:
    return RunningJob(rule=rule, name=name, began=1000.0 - since)


def test_the_plan_is_corrected_by_the_pace_of_finished_jobs() -> None:
    left = TimeLeft(planned={("train", name): 100.0 for name in "abc"}, waiting={("train", name) for name in "abc"})
    assert left.seconds([]) == 300
    first = running("train", "a", since=200)
    left.begin(first, running=1)
    left.finish(first)
    assert left.seconds([]) == 400, "twice as slow as planned"
    second = running("train", "b", since=50)
    left.begin(second, running=1)
    assert left.seconds([second]) == 150 + 200
    second.seconds_left = 30.0
    assert left.seconds([second]) == 30 + 200, "a training knows best"


def test_a_slow_start_of_a_short_job_says_nothing_of_other_stages() -> None:
    left = TimeLeft(planned={("score_base", "b"): 0.1, ("train", "a"): 20.0, ("score", "a"): 5.0})
    left.waiting = {("train", "a"), ("score", "a")}
    left.finish(running("score_base", "b", since=97))
    assert left.seconds([]) == 25


def test_a_slow_card_is_as_slow_for_other_stages() -> None:
    left = TimeLeft(planned={("train", "a"): 3600.0, ("score", "a"): 600.0}, waiting={("score", "a")})
    left.finish(running("train", "a", since=7200))
    assert left.seconds([]) == 1200


def test_a_short_job_says_nothing_of_training_and_counts_itself() -> None:
    left = TimeLeft(planned={("prepare_data", "d"): 6.0, ("train", "a"): 3600.0, ("report", ""): 7.0})
    left.waiting = {("train", "a"), ("report", "")}
    left.finish(running("prepare_data", "d", since=1))
    assert left.seconds([]) == 3607


def test_jobs_at_the_same_time_share_the_rest() -> None:
    left = TimeLeft(planned={("train", name): 100.0 for name in "abcd"}, waiting={("train", name) for name in "abcd"})
    jobs = [running("train", "a", since=0), running("train", "b", since=0)]
    for number, job in enumerate(jobs, start=1):
        left.begin(job, running=number)
    assert left.seconds(jobs) == 200


def test_without_a_plan_nothing_is_said_before_a_job_of_the_stage_has_finished() -> None:
    left = TimeLeft(waiting={("train", "a"), ("train", "b"), ("compare", "")})
    assert left.seconds([]) is None
    first = running("train", "a", since=60)
    left.begin(first, running=1)
    left.finish(first)
    assert left.seconds([]) == 60


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5400, "90 min"), (7800, "2 h 10 min")]
)
def test_a_duration_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("llama-s_lr1e-3_seed1_52e3a20a", "llama-s_lr1e-3_seed1"),
        ("llama-s_40416262@0.5", "llama-s@0.5"),
        ("base-llama-m-4054d981", "llama-m"),
        ("plans-llama-s-fa46b22e", "plans-llama-s"),
        ("", ""),
    ],
)
def test_a_run_is_named_without_its_hash(name: str, short: str) -> None:
    assert short_name(name) == short
