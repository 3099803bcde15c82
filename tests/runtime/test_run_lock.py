"""One trainer per run, on file systems with and without a shared flock."""

import errno
import fcntl
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Paused, UserError
from loragrid.runtime import run_lock
from loragrid.runtime.run_lock import STALE_SECONDS, RunLock


def test_second_trainer_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    with RunLock(tmp_path, run="r"):
        with pytest.raises(Paused) as refusal, RunLock(tmp_path, run="r"):
            pass
        text = str(refusal.value)
        assert f"process {os.getpid()}" in text and platform.node() in text and "r: already being trained" in text
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
        with pytest.raises(Paused, match="already being trained"), RunLock(tmp_path, run="r"):
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
    """The heartbeat continues, a lock that cannot be read is not lost, and a save succeeds."""
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
        raise UserError("wrong. Fix: change it.")
    assert not list(tmp_path.iterdir())


def test_holder_that_was_taken_over_finds_out(tmp_path: Path) -> None:
    with RunLock(tmp_path, run="r") as lock:
        _held_elsewhere(tmp_path, seconds_ago=0)
        with pytest.raises(UserError, match="elsewhere"):
            lock.check()
    assert json.loads((tmp_path / "trainer.lock").read_text())["host"] == "elsewhere"  # not cleared: it is not ours


# --- history
