"""One session of a run: stop requests, the session's end, and whether another step still fits."""

import argparse
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from loragrid.errors import EXIT_STOPPED, UserError, print_line, print_line_unbuffered

MARGIN_SECONDS = 1.0


class StopSignals:
    """Context manager that turns SIGTERM and SIGINT into a stop request, which the trainer checks
    after every update.

    `requested` is the signal's name or None. A repeated signal changes nothing, because snakemake
    forwards a Ctrl-C that the terminal has already sent to the job. SIGQUIT (Ctrl-\\) ends the
    process at once.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        # Python allows signal handlers only in the main thread; elsewhere (a test, a notebook)
        # callers use `request`.
        if _is_main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def request(self, reason: str) -> None:
        """Request a stop at the end of the current update."""
        self.requested = self.requested or reason

    def _handle(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        first = self.requested is None
        self.request(name)
        if first:
            print_line_unbuffered(f"{name}: saving a checkpoint at the end of this step, then stopping")


@contextmanager
def ctrl_c_ends_within(seconds: float) -> Iterator[None]:
    """Within the block Ctrl-C raises `KeyboardInterrupt` once, and ends the process within so many seconds.

    For work that loses nothing by a kill: Python raises the exception only between two operations,
    and one pass of a large model on a CPU may take a minute.
    """
    # A shell starts background jobs with the signal ignored; they are ended otherwise.
    if not _is_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    ended = threading.Event()

    def end_when_late() -> None:
        while numbers := os.read(reading, 64):
            if signal.SIGINT in numbers and not ended.wait(seconds):
                print_line_unbuffered("stopped by Ctrl-C")
                os._exit(EXIT_STOPPED)

    def stop_once(*_: object) -> None:
        # The terminal and snakemake both send the signal; a second exception would interrupt the end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    # Python writes the number of a signal here at once, also while a library computes.
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, stop_once)
    thread = threading.Thread(target=end_when_late, daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        # Freeing a model's memory and ending the interpreter would take seconds more.
        print_line("stopped by Ctrl-C")
        os._exit(EXIT_STOPPED)
    finally:
        ended.set()
        signal.set_wakeup_fd(previous)
        if signal.getsignal(signal.SIGINT) is stop_once:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(writing)
        thread.join()
        os.close(reading)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class SessionClock:
    """Time left in the session, in seconds of monotonic time, which a changed wall clock does not
    affect.

    `ends` is a value of `time.monotonic()`, one clock for all processes of a machine on Linux and
    macOS, or None for a session without an end.
    """

    def __init__(self, ends: float | None) -> None:
        self._began, self._ends = time.monotonic(), ends
        self._slowest_step = 0.0
        self._slowest_evaluation = 0.0
        self._slowest_save = 0.0
        self._slowest_copy = 0.0

    def elapsed(self) -> float:
        """Seconds since this job's work began."""
        return time.monotonic() - self._began

    def left(self) -> float:
        """Seconds until the session ends; infinity for one without an end."""
        return math.inf if self._ends is None else self._ends - time.monotonic()

    def record_duration(
        self, *, step: float = 0.0, evaluation: float = 0.0, save: float = 0.0, copy: float = 0.0
    ) -> None:
        """Record how long a part of the work takes, measured or expected; `copy`: of a checkpoint to its backup."""
        self._slowest_step = max(self._slowest_step, step)
        self._slowest_evaluation = max(self._slowest_evaluation, evaluation)
        self._slowest_save = max(self._slowest_save, save)
        self._slowest_copy = max(self._slowest_copy, copy)

    def slowest_step(self) -> float:
        """Seconds of the slowest step so far."""
        return self._slowest_step

    def too_late(self, *, with_evaluation: bool = False, loading: float = 0.0) -> bool:
        """Whether another step, and the save and the copy after it, might outlast the session.

        `with_evaluation` adds an evaluation, `loading` the seconds of loading before the step.
        """
        # Safety factors: steps and evaluations vary little, saving varies with the load of the
        # drive.
        evaluation = 1.2 * self._slowest_evaluation if with_evaluation else 0.0
        work = loading + 1.2 * self._slowest_step + evaluation + 1.5 * (self._slowest_save + self._slowest_copy)
        return work + MARGIN_SECONDS > self.left()


def session_seconds(minutes: Any, *, key: str) -> float | None:
    """A session's length in seconds from the minutes given under `key`; None for no limit."""
    if minutes is None:
        return None
    number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
    if not number or not math.isfinite(minutes) or minutes <= 0:
        raise UserError(
            f"{key}: not a number of minutes above 0 ({minutes}). Fix: set it to the session's length, such as 55."
        )
    return minutes * 60


def add_session_options(parser: argparse.ArgumentParser) -> None:
    """Add `--session-minutes`, for people, and `--session-ends`, for rules, whose jobs share one
    session."""
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument(
        "--session-minutes", type=float, metavar="M", help="pause in time for a session that lasts M minutes from now"
    )
    limit.add_argument(
        "--session-ends", type=float, metavar="T", help="the same for one that ends at T seconds of the monotonic clock"
    )


def session_end(options: argparse.Namespace, *, session_minutes: float | None) -> float | None:
    """When the session ends, on the monotonic clock: by the command line, else by the study's
    `session_minutes`."""
    if options.session_ends is not None:
        return options.session_ends
    if options.session_minutes is not None:
        seconds = session_seconds(options.session_minutes, key="--session-minutes")
    else:
        seconds = session_seconds(session_minutes, key="training.session_minutes")
    return None if seconds is None else time.monotonic() + seconds
