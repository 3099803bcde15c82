"""Lines about long work: what they say, and that they come while one operation takes long."""

import time

import pytest

from loragrid.runtime import progress_lines
from loragrid.runtime.progress_lines import ProgressLines, RepeatedLines, working


@pytest.fixture
def ten_seconds_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work begins at 0 and is looked at after ten seconds."""
    times = iter([0.0, 0.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times, 10.0))


@pytest.mark.usefixtures("ten_seconds_ago")
def test_the_time_left_follows_from_tokens_where_they_are_known() -> None:
    with ProgressLines("[run] held-out loss", total=80, items="rows", tokens=4000) as lines:
        lines.add(items=10, tokens=1000)
        assert lines.line() == "[run] held-out loss: 10 of 80 rows, 1,000 tokens, 100 tokens/s | 10 s, 30 s left"


@pytest.mark.usefixtures("ten_seconds_ago")
def test_answers_that_end_early_lower_the_bound() -> None:
    with ProgressLines("task", total=2, items="answers", tokens=2000, at_most=True) as lines:
        lines.add(tokens=100)
        assert lines.line().endswith("| 10 s, at most 190 s left")
        lines.add(items=1, unused=900)
        assert lines.line() == "task: 1 of 2 answers, 100 tokens, 10 tokens/s | 10 s, at most 100 s left"


@pytest.mark.usefixtures("ten_seconds_ago")
def test_before_anything_is_done_no_time_left_is_said() -> None:
    with ProgressLines("task", total=3, items="log-likelihoods") as lines:
        assert lines.line() == "task: 0 of 3 log-likelihoods | 10 s"
        lines.add(items=1)
        assert lines.line() == "task: 1 of 3 log-likelihoods | 10 s, 20 s left"


def test_lines_come_during_a_long_operation_and_none_after_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert progress_lines.LINE_SECONDS < 10
    monkeypatch.setattr(progress_lines, "LINE_SECONDS", 0.05)
    with ProgressLines("task", total=3, items="rows"):
        time.sleep(0.5)
    said = capsys.readouterr().err.splitlines()
    assert said and all(line.startswith("task: 0 of 3 rows | ") for line in said)
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_work_of_unknown_length_says_how_long_it_has_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(progress_lines, "LINE_SECONDS", 0.02)
    with working("[run] loading the base"):
        time.sleep(0.2)
    said = capsys.readouterr().err.splitlines()
    assert said and set(said) == {"[run] loading the base | 0 s"}


def test_of_nested_lines_only_the_innermost_are_printed() -> None:
    said: list[str] = []

    def hear(what: str, times: int) -> list[str]:
        """All that is said from now on until `what` was said so often."""
        start, until = len(said), time.monotonic() + 60
        while said[start:].count(what) < times:
            assert time.monotonic() < until
            time.sleep(0.005)
        return said[start:]

    with RepeatedLines(lambda: said.append("outer"), seconds=0.01):
        hear("outer", 1)
        with RepeatedLines(lambda: said.append("inner"), seconds=0.01):
            hear("inner", 1)  # an outer call may have begun before
            assert set(hear("inner", 5)) == {"inner"}
        assert set(hear("outer", 5)) == {"outer"}
    count = len(said)
    time.sleep(0.05)
    assert len(said) == count
