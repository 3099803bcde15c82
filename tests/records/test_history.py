"""Sessions of a run in its history: killed ones are closed, torn lines are harmless."""

import platform
from pathlib import Path
from typing import Any

import pytest

from loragrid.records.history import History


def start(history: History, step: int, **more: Any) -> None:
    history.start(step=step, seconds_before=more.pop("before", 0.0), device="d", fingerprint_sha256=more.pop("of", "f"))


def test_killed_session_is_closed_with_what_the_losses_tell(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    start(history, 5, before=2.0)
    history.close_killed(last_step=9, last_seconds=6.5)
    history.close_killed(last_step=9, last_seconds=6.5)  # only once
    start(history, 8)
    history.end(step=12, seconds=1.0, ended="finished", energy_joules=3.0)
    sessions = history.sessions()
    assert [(s.start_step, s.end_step, s.seconds, s.ended) for s in sessions] == [
        (5, 9, 4.5, "killed"),
        (8, 12, 1.0, "finished"),
    ]
    assert sessions[0].host == platform.node()
    assert history.session_values("energy_joules") == [None, 3.0]


def test_session_killed_before_its_first_row_ends_where_it_began(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    start(history, 5, before=9.0)
    history.close_killed(last_step=3, last_seconds=1.0)
    assert history.sessions()[0].end_step == 5 and history.sessions()[0].seconds == 0.0


@pytest.mark.parametrize(("of", "ended", "kept"), [("f", "finished", 1), ("g", "killed", 1), ("f", "killed", 2)])
def test_only_sessions_of_this_attempt_count(tmp_path: Path, of: str, ended: str, kept: int) -> None:
    history = History(tmp_path / "history.jsonl")
    start(history, 0)
    history.end(step=3, seconds=1.0, ended=ended)
    start(history, 0, of=of)
    history.end(step=3, seconds=1.0, ended="finished")
    assert len(history.sessions()) == kept and len(history.lines()) == 4


def test_torn_line_swallows_nothing(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    start(history, 0)
    with open(history.path, "a") as file:
        file.write('{"event": "end", "st')
    history.close_killed(last_step=2, last_seconds=1.0)
    assert [session.end_step for session in history.sessions()] == [2]
