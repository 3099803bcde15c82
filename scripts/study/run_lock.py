"""One trainer per run: a lock file in the run's folder that says who holds it.

Two things together, because neither is enough. The kernel's lock (`flock`) ends with its process, however that dies,
so an orphan or a second terminal on the same machine is told apart from a crash without waiting. But many network file
systems and mounted drives keep `flock` to one machine; so the holder also touches the file every few seconds, and a
trainer on another machine stays away until that sign of life is too old. Ages are taken by the file system's own clock,
never by comparing two machines' clocks. A machine that slept finds at its next save that it lost the lock, and stops.
"""

import fcntl
import json
import os
import platform
import secrets
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from study.errors import Paused, UserError

HEARTBEAT_SECONDS = 20.0
# Longer than any pause of a live trainer: a frozen drive, a long evaluation (the heartbeat has a thread of its own).
STALE_SECONDS = 300.0


class RunLock:
    """A context manager that holds `folder/trainer.lock`, or raises `Paused` in a line that names who does."""

    def __init__(self, folder: Path, *, run: str) -> None:
        self.path = folder / "trainer.lock"
        self.run = run
        self._token = secrets.token_hex(8)
        self._descriptor: int | None = None
        self._stop = threading.Event()

    def __enter__(self) -> "RunLock":
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take()
        except BaseException:
            os.close(self._descriptor)
            raise
        threading.Thread(target=self._beat, name="run-lock", daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._is_mine():
            os.ftruncate(self._descriptor, 0)  # an empty lock file: nobody holds it, on any machine
        os.close(self._descriptor)

    def check(self) -> None:
        """Raise `UserError` if another trainer has taken the run over, as one may after this machine slept."""
        if not self._is_mine():
            raise UserError(
                f"run {self.run} was taken over while this trainer gave no sign of life ({_describe(self._holder())}): "
                "this one stops; the other goes on"
            )

    def _take(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._refuse("wait for it, or stop that process")
        except OSError:
            pass  # a file system without flock: the sign of life below is all there is
        holder = self._holder()
        if holder and holder.get("host") != platform.node():
            age = self._age_seconds()
            if age < STALE_SECONDS:
                self._refuse(
                    f"last sign of life {age:.0f} s ago; if that machine is gone, "
                    f"try again in {STALE_SECONDS - age:.0f} s or delete {self.path}"
                )
        mine = {"host": platform.node(), "pid": os.getpid(), "token": self._token, "run": self.run}
        mine["since"] = datetime.now(UTC).isoformat(timespec="seconds")
        content = json.dumps(mine).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)
        os.fsync(self._descriptor)

    def _refuse(self, mend: str) -> None:
        raise Paused(f"run {self.run} is being trained already ({_describe(self._holder())}): {mend}")

    def _holder(self) -> dict[str, Any]:
        try:
            value = json.loads(self.path.read_bytes() or b"{}")
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def _is_mine(self) -> bool:
        return self._holder().get("token") == self._token

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
            if not self._is_mine():
                return
            os.utime(self.path)


def _describe(holder: dict[str, Any]) -> str:
    if not holder:
        return "its lock names nobody yet"
    return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
