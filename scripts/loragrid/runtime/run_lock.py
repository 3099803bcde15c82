"""One trainer per run, and one snakemake per study: a lock file in the folder that names its holder.

It combines two locks because neither is enough alone. The kernel's lock (`flock`) ends with its
process, however that dies, so a crash is distinguished from a live trainer on the same machine
without waiting. But many network file systems and mounted drives keep `flock` to one machine. The
holder therefore also touches the file every few seconds (heartbeat), and a trainer on another
machine waits until the last heartbeat is too old. Ages use the file system's own clock, never the
clocks of two machines. A machine that slept notices at its next heartbeat or save that it lost the
lock, and stops. A lock that cannot be read for a moment, as happens on network drives, counts as
still held.

Written by hand because the `filelock` library has no heartbeat for file systems without a shared
flock.
"""

import fcntl
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from loragrid.errors import Paused, UserError

HEARTBEAT_SECONDS = 20.0
# Longer than any pause of a live trainer, such as a frozen drive; the heartbeat has a thread of its
# own.
STALE_SECONDS = 300.0
READS, READ_PAUSE_SECONDS = 3, 0.2


class RunLock:
    """Context manager that holds `folder/trainer.lock`, or raises `Paused` with a line that names
    the holder."""

    file, refusal = "trainer.lock", "run {run}: already being trained ({holder}). {advice}"

    def __init__(self, folder: Path, *, run: str, on_loss: Callable[[str], None] = lambda reason: None) -> None:
        """`on_loss` is called once, from another thread, when a heartbeat finds that another
        trainer took over."""
        self.path = folder / self.file
        self.run = run
        self._on_loss = on_loss
        self._token = secrets.token_hex(8)
        self._descriptor: int | None = None
        self._stop = threading.Event()

    def __enter__(self) -> "RunLock":
        self._new = not self.path.exists()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take()
        except BaseException:
            os.close(self._descriptor)
            raise
        threading.Thread(target=self._beat, name="run-lock", daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release the lock. After a `UserError` nothing was trained, so no new lock file is
        left."""
        self._stop.set()
        if self._is_mine():
            with suppress(OSError):  # the drive is gone: the lock expires by its age
                os.ftruncate(self._descriptor, 0)  # an empty lock file is free on every machine
                if self._new and isinstance(error, UserError):
                    self.path.unlink()
        os.close(self._descriptor)

    def check(self) -> None:
        """Raise `UserError` if another trainer has taken over the run, as one may after this
        machine slept."""
        if self.lost():
            raise UserError(
                f"run {self.run}: taken over by another trainer while this one was suspended "
                f"({self._describe_holder()}). "
                "This one stops; the other continues."
            )

    def lost(self) -> bool:
        """Whether another trainer certainly holds the lock; False while the file cannot be read."""
        return self._is_mine() is False

    def _take(self) -> None:
        locked = True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._refuse("Fix: wait for it, or stop that process.")
        except OSError:
            locked = False  # a file system without flock: only the heartbeat below remains
        holder = self._holder()
        here = holder.get("host") == platform.node()
        gone = not holder or (here and (locked or not _runs(holder.get("pid"))))
        if not gone and (age := self._age_seconds()) < STALE_SECONDS:
            self._refuse(
                f"Last heartbeat {age:.0f} s ago. Fix: if that {'process' if here else 'machine'} is gone, "
                f"try again in {STALE_SECONDS - age:.0f} s or delete {self.path}."
            )
        mine = {"host": platform.node(), "pid": os.getpid(), "token": self._token, "run": self.run}
        mine["since"] = datetime.now(UTC).isoformat(timespec="seconds")
        content = json.dumps(mine).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)
        os.fsync(self._descriptor)

    def _refuse(self, advice: str) -> None:
        raise Paused(self.refusal.format(run=self.run, holder=self._describe_holder(), advice=advice))

    def _holder(self) -> dict[str, Any]:
        """The holder that the file names; empty while the file is empty or half written."""
        try:
            value = json.loads(self.path.read_bytes() or b"{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def _describe_holder(self) -> str:
        try:
            holder = self._holder()
        except OSError as error:
            return f"its lock cannot be read: {error.strerror}"
        if not holder:
            return "its lock names no holder yet"
        return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"

    def _is_mine(self) -> bool | None:
        """Whether the file names this lock; None if it cannot be read after a few tries.

        A deleted file is not ours: somebody cleared it for another trainer.
        """
        for _ in range(READS):
            try:
                return self._holder().get("token") == self._token
            except FileNotFoundError:
                return False
            except OSError:
                time.sleep(READ_PAUSE_SECONDS)
        return None

    def _age_seconds(self) -> float:
        """Seconds since the holder's last heartbeat, by the file system's clock: compared with a
        file touched now."""
        probe = self.path.with_name(f".clock-{self._token}")
        try:
            probe.touch()
            return max(0.0, probe.stat().st_mtime - self.path.stat().st_mtime)
        finally:
            probe.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            if self.lost():
                self._on_loss("taken over by another trainer")
                return
            with suppress(OSError):  # a brief drive failure: the next heartbeat follows soon
                os.utime(self.path)


class StudyLock(RunLock):
    """Holds `folder/workflow.lock` for one call of snakemake.

    Snakemake's own lock is in its working directory, so two of them can share a folder of results
    by a link or a mount.
    """

    file, refusal = "workflow.lock", "{run}: another snakemake writes these results ({holder}). {advice}"


def _runs(pid: Any) -> bool:
    """Whether a process on this machine is alive."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return False
    except PermissionError:
        return True  # it belongs to another user
    return True
