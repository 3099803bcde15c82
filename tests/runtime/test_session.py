"""Sessions: signals, the time limit, the lock and the history."""

import argparse
import errno
import fcntl
import io
import json
import math
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Paused, UserError
from loragrid.records.history import History
from loragrid.runtime import run_lock
from loragrid.runtime.run_lock import STALE_SECONDS, RunLock
from loragrid.runtime.session import SessionClock, StopSignals, add_session_options, session_end, session_seconds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_becomes_a_wish_and_the_old_handler_comes_back(number: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert stop.requested is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # snakemake passes on what the terminal has sent already
        assert stop.requested == signal.Signals(number).name
    assert signal.getsignal(number) is before


def test_a_signal_in_the_middle_of_a_write_is_a_wish_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    class Interrupted(io.RawIOBase):
        interrupted = False

        def writable(self) -> bool:
            return True

        def write(self, content: bytes) -> int:
            if not self.interrupted:
                self.interrupted = True
                os.kill(os.getpid(), signal.SIGTERM)
            return os.write(2, content)

    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(Interrupted()), write_through=True))
    with StopSignals() as stop:
        print("step 3 of 12", file=sys.stderr, flush=True)
    assert stop.requested == "SIGTERM"
    told = capfd.readouterr().err.splitlines()
    assert told == ["SIGTERM: saving a checkpoint at the end of this step, then stopping", "step 3 of 12"]


def test_session_limit_leaves_time_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = SessionClock(now + 60)
    clock.took(step=10.0, save=4.0)
    now += 40  # 40 + 12 + 6 + 1 < 60
    assert (clock.elapsed(), clock.left()) == (40, 20)
    assert not clock.too_late(with_evaluation=False) and clock.too_late(loading=1.5)
    clock.took(evaluation=5.0)
    assert clock.too_late(with_evaluation=True) and not clock.too_late(with_evaluation=False)
    clock.took(save=20.0)
    assert clock.too_late(with_evaluation=False)
    assert not SessionClock(None).too_late(with_evaluation=True, loading=1e9)


@pytest.mark.parametrize("minutes", ["abc", "nan", math.nan, math.inf, 0, -5, True, "55"])
def test_a_session_s_length_is_a_number_of_minutes(minutes: Any) -> None:
    with pytest.raises(UserError, match=r"session_minutes: .* is no number of minutes above 0: set it"):
        session_seconds(minutes, key="session_minutes")


@pytest.mark.parametrize(
    ("given", "study", "left"),
    [([], None, None), ([], 2, 120), (["--session-minutes", "1.5"], 2, 90), (["--session-ends", "1007"], 2, 7)],
)
def test_when_a_session_ends(
    monkeypatch: pytest.MonkeyPatch, given: list[str], study: float | None, left: float | None
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    parser = argparse.ArgumentParser()
    add_session_options(parser)
    ends = session_end(parser.parse_args(given), session_minutes=study)
    assert ends == (None if left is None else 1000 + left)


# --- lock


def test_second_trainer_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    with RunLock(tmp_path, run="r"):
        with pytest.raises(Paused) as refusal, RunLock(tmp_path, run="r"):
            pass
        text = str(refusal.value)
        assert f"process {os.getpid()}" in text and platform.node() in text and "r is being trained" in text
    with RunLock(tmp_path, run="r") as lock:  # given back
        lock.check()


def test_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    """The kernel's lock went with the process; its name in the file does not matter."""
    code = (
        "import sys, time\n"
        "from pathlib import Path; from loragrid.runtime.run_lock import RunLock\n"
        f"with RunLock(Path({str(tmp_path)!r}), run='r'): print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Paused, match=f"process {holder.pid}"), RunLock(tmp_path, run="r"):
            pass
        holder.kill()
        holder.wait()
    assert json.loads((tmp_path / "trainer.lock").read_text())["pid"] == holder.pid
    with RunLock(tmp_path, run="r") as lock:
        lock.check()


def _held_elsewhere(folder: Path, *, seconds_ago: float) -> Path:
    path = folder / "trainer.lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 7, "token": "t", "since": "noon"}))
    seen = time.time() - seconds_ago
    os.utime(path, (seen, seen))
    return path


def test_live_lock_of_another_machine_is_refused_with_the_way_to_clear_it(tmp_path: Path) -> None:
    path = _held_elsewhere(tmp_path, seconds_ago=STALE_SECONDS - 100)
    with pytest.raises(Paused) as refusal, RunLock(tmp_path, run="r"):
        pass
    text = str(refusal.value)
    assert "process 7 on elsewhere since noon" in text and str(path) in text and "delete" in text


def test_silent_lock_of_another_machine_is_taken_over(tmp_path: Path) -> None:
    _held_elsewhere(tmp_path, seconds_ago=STALE_SECONDS + 5)
    with RunLock(tmp_path, run="r") as lock:
        lock.check()


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", without)


def test_file_system_without_flock_still_has_the_sign_of_life(tmp_path: Path, without_flock: None) -> None:
    _held_elsewhere(tmp_path, seconds_ago=1)
    with pytest.raises(Paused), RunLock(tmp_path, run="r"):
        pass


def test_without_flock_a_live_process_of_this_machine_keeps_the_lock(tmp_path: Path, without_flock: None) -> None:
    with RunLock(tmp_path, run="r") as first:
        with pytest.raises(Paused, match="is being trained already"), RunLock(tmp_path, run="r"):
            pass
        first.check()


def test_without_flock_a_dead_process_of_this_machine_does_not(tmp_path: Path, without_flock: None) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    holder = {"host": platform.node(), "pid": gone.pid, "token": "t", "since": "noon"}
    (tmp_path / "trainer.lock").write_text(json.dumps(holder))
    with RunLock(tmp_path, run="r") as lock:
        lock.check()


def failing(times: int, error: OSError, call: Any) -> Any:
    """`call`, but its first calls raise."""
    left = iter(range(times))

    def maybe(*arguments: Any, **named: Any) -> Any:
        if next(left, None) is not None:
            raise error
        return call(*arguments, **named)

    return maybe


def test_a_drive_that_hiccups_costs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heart goes on beating, a lock that cannot be read is not lost, and a save goes through."""
    stale, lost = OSError(errno.ESTALE, "Stale file handle"), []
    monkeypatch.setattr(run_lock, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(run_lock, "READ_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(os, "utime", failing(3, stale, os.utime))
    with RunLock(tmp_path, run="r", on_loss=lost.append) as lock:
        read = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", failing(10**9, stale, read))
        assert not lock.lost()
        lock.check()
        monkeypatch.setattr(Path, "read_bytes", failing(2, stale, read))
        lock.check()
        before = lock.path.stat().st_mtime_ns
        deadline = time.monotonic() + 10
        while lock.path.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert lost == [] and (tmp_path / "trainer.lock").read_bytes() == b""


@pytest.mark.parametrize("clear", [False, True])
def test_a_sign_of_life_finds_the_lock_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clear: bool) -> None:
    """Taken over, or deleted by hand for another trainer: this one is asked to stop."""
    monkeypatch.setattr(run_lock, "HEARTBEAT_SECONDS", 0.01)
    lost = threading.Event()
    with RunLock(tmp_path, run="r", on_loss=lambda reason: lost.set()) as lock:
        lock.path.unlink() if clear else _held_elsewhere(tmp_path, seconds_ago=0)
        assert lost.wait(10) and lock.lost()


def test_a_mistake_of_the_user_leaves_no_lock_file(tmp_path: Path) -> None:
    with pytest.raises(UserError), RunLock(tmp_path, run="r"):
        raise UserError("mend it")
    assert not list(tmp_path.iterdir())


def test_holder_that_was_taken_over_finds_out(tmp_path: Path) -> None:
    with RunLock(tmp_path, run="r") as lock:
        _held_elsewhere(tmp_path, seconds_ago=0)
        with pytest.raises(UserError, match="elsewhere"):
            lock.check()
    assert json.loads((tmp_path / "trainer.lock").read_text())["host"] == "elsewhere"  # not cleared: it is not ours


# --- history


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
    assert history.told("energy_joules") == [None, 3.0]


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
