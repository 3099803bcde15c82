"""One session of a run: when it was asked to stop, and whether the next update still fits its time limit."""

import signal
import threading
import time
from types import FrameType

from study.errors import tell

MARGIN_SECONDS = 1.0


class StopSignals:
    """Turns SIGTERM and SIGINT into a wish that the trainer looks at after every update.

    A context manager; `requested` is the signal's name or None. A repeated signal changes nothing, since snakemake
    passes Ctrl-C on to jobs that the terminal has already told: SIGQUIT (Ctrl-\\) ends the process at once.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        # Python takes signal handlers only in the main thread; elsewhere (a test, a notebook) the caller asks by `request`.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def request(self, reason: str) -> None:
        """Ask for a stop at the end of the current update."""
        self.requested = self.requested or reason

    def _handle(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested is None:
            tell(f"{name}: saving a checkpoint at the end of this step, then stopping")
        self.request(name)


class SessionClock:
    """Monotonic time since the process began its work, so that a wall clock set back changes nothing (seconds)."""

    def __init__(self, limit_minutes: float | None) -> None:
        self._began = time.monotonic()
        self._limit = None if limit_minutes is None else limit_minutes * 60
        self._slowest_step = 0.0
        self._slowest_evaluation = 0.0
        self._slowest_save = 0.0

    def elapsed(self) -> float:
        """Seconds since this session began."""
        return time.monotonic() - self._began

    def took(self, *, step: float = 0.0, evaluation: float = 0.0, save: float = 0.0) -> None:
        """Learn how long a part of the work lasts here, or is expected to last."""
        self._slowest_step = max(self._slowest_step, step)
        self._slowest_evaluation = max(self._slowest_evaluation, evaluation)
        self._slowest_save = max(self._slowest_save, save)

    def too_late(self, *, with_evaluation: bool) -> bool:
        """Whether another update (and evaluation) and the save after it might outlive the session."""
        if self._limit is None:
            return False
        save = 1.5 * self._slowest_save
        evaluation = 1.2 * self._slowest_evaluation if with_evaluation else 0.0
        return self.elapsed() + 1.2 * self._slowest_step + evaluation + save + MARGIN_SECONDS > self._limit
