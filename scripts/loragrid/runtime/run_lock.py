"""One trainer per run: a lock file in the run's folder that says who holds it.

Two things together, because neither is enough. The kernel's lock (`flock`) ends with its process, however that dies,
so an orphan or a second terminal on the same machine is told apart from a crash without waiting. But many network file
systems and mounted drives keep `flock` to one machine; so the holder also touches the file every few seconds, and a
trainer on another machine stays away until that sign of life is too old. Ages are taken by the file system's own clock,
never by comparing two machines' clocks. A machine that slept finds at its next sign of life, or its next save, that it
lost the lock, and stops; a lock that cannot be read for a moment, as drives do, is nobody else's.
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
# Longer than any pause of a live trainer: a frozen drive, a long evaluation (the heartbeat has a thread of its own).
STALE_SECONDS = 300.0
READS, READ_PAUSE_SECONDS = 3, 0.2


class RunLock:
    """A context manager that holds `folder/trainer.lock`, or raises `Paused` in a line that names who does."""

    def __init__(self, folder: Path, *, run: str, on_loss: Callable[[str], None] = lambda reason: None) -> None:
        """`on_loss` is called once, from another thread, when a sign of life finds that another trainer took over."""
        self.path = folder / "trainer.lock"
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
        """Give the lock back. A mistake of the user leaves no new file: nothing was trained."""
        self._stop.set()
        if self._is_mine():
            with suppress(OSError):  # a drive that is gone: the lock is then too old in a while
                os.ftruncate(self._descriptor, 0)  # an empty lock file: nobody holds it, on any machine
                if self._new and isinstance(error, UserError):
                    self.path.unlink()
        os.close(self._descriptor)

    def check(self) -> None:
        """Raise `UserError` if another trainer has taken the run over, as one may after this machine slept."""
        if self.lost():
            raise UserError(
                f"run {self.run} was taken over while this trainer gave no sign of life ({self._describe_holder()}): "
                "this one stops; the other goes on"
            )

    def lost(self) -> bool:
        """Whether the lock is certainly another's now. A file that cannot be read just now says nothing."""
        return self._is_mine() is False

    def _take(self) -> None:
        locked = True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._refuse("wait for it, or stop that process")
        except OSError:
            locked = False  # a file system without flock: the sign of life below is all there is
        holder = self._holder()
        here = holder.get("host") == platform.node()
        gone = not holder or (here and (locked or not _runs(holder.get("pid"))))
        if not gone and (age := self._age_seconds()) < STALE_SECONDS:
            self._refuse(
                f"last sign of life {age:.0f} s ago; if that {'process' if here else 'machine'} is gone, "
                f"try again in {STALE_SECONDS - age:.0f} s or delete {self.path}"
            )
        mine = {"host": platform.node(), "pid": os.getpid(), "token": self._token, "run": self.run}
        mine["since"] = datetime.now(UTC).isoformat(timespec="seconds")
        content = json.dumps(mine).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)
        os.fsync(self._descriptor)

    def _refuse(self, mend: str) -> None:
        raise Paused(f"run {self.run} is being trained already ({self._describe_holder()}): {mend}")

    def _holder(self) -> dict[str, Any]:
        """Who the file names; nobody while it is empty or half written."""
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
            return "its lock names nobody yet"
        return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"

    def _is_mine(self) -> bool | None:
        """None where the file cannot be read, after a few tries. One that was deleted was cleared for another trainer."""
        for _ in range(READS):
            try:
                return self._holder().get("token") == self._token
            except FileNotFoundError:
                return False
            except OSError:
                time.sleep(READ_PAUSE_SECONDS)
        return None

    def _age_seconds(self) -> float:
        """Seconds since the holder's last sign of life, by the file system's clock: that of a file touched now."""
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
            with suppress(OSError):  # a drive that hiccups: the next beat comes soon enough
                os.utime(self.path)


def _runs(pid: Any) -> bool:
    """Whether a process of this machine is alive."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return False
    except PermissionError:
        return True  # another user's
    return True
