"""Copying in the background, so that training goes on meanwhile."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class CopyJob:
    """Something to copy: the folder that must stay until it is copied, and the function that copies it.

    `done(seconds)` is called after a copy, `failed(error)` if it raised.
    """

    folder: Path
    copy: Callable[[], None]
    done: Callable[[float], None]
    failed: Callable[[Exception], None]


class Copier:
    """Copies one job at a time, each in a thread; a newer job takes the place of one that waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: CopyJob | None = None
        self._waiting: CopyJob | None = None

    @property
    def in_use(self) -> tuple[Path, ...]:
        """The folders that are copied now or next."""
        with self._changed:
            return tuple(job.folder for job in (self._running, self._waiting) if job is not None)

    def submit(self, job: CopyJob) -> None:
        """Copy a job as soon as the running one has ended."""
        with self._changed:
            if self._running is not None:
                self._waiting = job
                return
            self._running = job
        # A daemon: a copy that hangs must not keep the process from ending.
        threading.Thread(target=self._work, name="backup", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is left to copy, at most so long; False if something is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running is None, seconds)

    def _work(self) -> None:
        while (job := self._running) is not None:
            began = time.monotonic()
            try:
                job.copy()
                job.done(time.monotonic() - began)
            except Exception as error:
                job.failed(error)
            finally:
                with self._changed:
                    self._running, self._waiting = self._waiting, None
                    self._changed.notify_all()
