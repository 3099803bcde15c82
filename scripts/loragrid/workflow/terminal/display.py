"""The display of one call of Snakemake: it receives jobs' events and output, and is the only writer on the terminal."""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from loragrid.errors import DISPLAY, EVENT
from loragrid.workflow.terminal.captured_output import CapturedOutput
from loragrid.workflow.terminal.header import SILENT_RULES, CallPlan
from loragrid.workflow.terminal.running_job import RunningJob, duration, failed_line, finished_line
from loragrid.workflow.terminal.screens import BarScreen, LineScreen, Snapshot, has_cursor
from loragrid.workflow.terminal.time_left import TimeLeft

# Without bars: a line on a running job after so many seconds, then after twice as many, and so on.
FIRST_LINE_SECONDS, MOST_LINE_SECONDS = 60.0, 600.0


class Display:
    """Lines and bars of a call; until `begin` it writes single lines to stderr.

    `report`: the page that the study ends in. `shows_jobs` and `shows_progress` are False for `--quiet`.
    """

    def __init__(self, *, shows_jobs: bool = True, shows_progress: bool = True) -> None:
        self.shows_jobs, self.shows_progress = shows_jobs, shows_progress
        self.report: Path | None = None
        self._screen: LineScreen | BarScreen = LineScreen(sys.stderr)
        self._captured: list[CapturedOutput] = []
        self._file: TextIO = sys.stderr
        self._lock = threading.RLock()
        self._running: dict[Any, RunningJob] = {}
        self._left = TimeLeft()
        self._done = self._total = self._unshown = 0
        self._began: float | None = None
        # On the monotonic clock; None if unknown.
        self._ends_at: float | None = None

    def begin(self, plan: CallPlan, *, colors: bool = True) -> None:
        """Print the header and take over the output of this process and its jobs."""
        if not plan.jobs:
            return
        with self._lock:
            self._began, self._total = time.monotonic(), len(plan.jobs)
            self._unshown = plan.unshown
            self._left = TimeLeft(planned=plan.planned_seconds, waiting=set(plan.jobs))
            # Each job asks for it when it prints.
            os.environ[DISPLAY] = "1"
            self._estimate()
            self._take_over(colors)
            if self.shows_jobs:
                for number, line in enumerate(plan.header):
                    self._screen.print(f"{'loragrid | ' if number == 0 else '         | '}{line}")

    def job_began(self, number: Any, info: Mapping[str, Any]) -> None:
        """Snakemake has started or submitted a job; `info` is its event."""
        job = RunningJob.of(info)
        with self._lock:
            if job.rule in SILENT_RULES or self._began is None:
                return
            self._running[number] = job
            self._left.begin(job, running=len(self._running))
            self._estimate()

    def job_finished(self, number: Any) -> None:
        """A job has finished: print its result."""
        with self._lock:
            job = self._running.pop(number, None)
            if job is None:
                return
            self._left.finish(job)
            self._done += 1
            self._estimate()
            if self.shows_jobs:
                self._screen.print(f"{self._position()} {finished_line(job)}")

    def job_failed(self, number: Any, info: Mapping[str, Any], exit_text: str) -> None:
        """A job has failed or paused: print why, and its log."""
        with self._lock:
            job = self._running.pop(number, None)
            if job is None:
                job = RunningJob(rule=info["rule_name"], log=next(iter(info["log"] or ()), ""))
            self._estimate()
            position = f"[{self._count()}] " if self._began is not None else ""
            self._screen.print(position + failed_line(job, exit_text))

    def count_jobs(self, total: int) -> None:
        """Snakemake counts this many jobs, which may be more than at the start, after a search."""
        with self._lock:
            self._total = max(self._total, total - self._unshown)

    def print(self, line: str) -> None:
        """Print a line that is no job's."""
        with self._lock:
            self._screen.print(line)

    def read_line(self, line: str) -> None:
        """A line that a job, or a library in it, has written."""
        if not line.strip():
            return
        with self._lock:
            event = _event(line)
            if event is None:
                self._screen.print(line)
                return
            job = next((job for job in self._running.values() if job.log and job.log == event["log"]), None)
            # Of the other kinds, results and ends are said when the job has ended.
            if event["kind"] == "line":
                self._notice(event["line"], job)
            elif event["kind"] == "progress" and job is not None:
                job.update(event)
                self._estimate()
                self._progress_line(job)

    def close(self) -> None:
        """Print how the call ended and give the terminal back."""
        with self._lock:
            captured, self._captured = self._captured, []
        for output in captured:
            output.close()
        with self._lock:
            if self._began is None:
                return
            self._screen.close()
            self._file.close()
            self._screen = LineScreen(sys.stderr)
            if self.shows_jobs and self._done >= self._total:
                self._screen.print(self._ended())
            self._began = None
            os.environ.pop(DISPLAY, None)

    def snapshot(self) -> Snapshot:
        """The state that the bars show."""
        # Without the lock: the thread that draws the bars holds one that printing a line waits for.
        text = f"{self._done} of {self._total}, {duration(time.monotonic() - (self._began or 0))} so far{self._left_text()}"
        return Snapshot(list(self._running.values()), self._done, self._total, text)

    def _take_over(self, colors: bool) -> None:
        sys.stderr.flush()
        bars = colors and self.shows_progress and has_cursor(sys.stderr)
        error_output = CapturedOutput(2, self.read_line)
        self._captured = [error_output]
        self._file = os.fdopen(os.dup(error_output.original), "w", encoding="utf-8", errors="replace")
        if not bars:
            self._screen = LineScreen(self._file)
            return
        self._screen = BarScreen(self._file, self.snapshot)
        if sys.stdout is not None and os.isatty(1):
            # What a job prints there would break the bars.
            sys.stdout.flush()
            self._captured.append(CapturedOutput(1, self.print))

    def _estimate(self) -> None:
        left = self._left.seconds(self._running.values())
        self._ends_at = None if left is None else time.monotonic() + left

    def _left_text(self) -> str:
        left = 0.0 if self._ends_at is None else self._ends_at - time.monotonic()
        # Later than expected: the next event brings a new number.
        return f" · {duration(left)} left" if left >= 1 else ""

    def _position(self) -> str:
        return f"[{self._count()}{self._left_text()}]"

    def _count(self) -> str:
        return f"{self._done:>{len(str(self._total))}}/{self._total}"

    def _notice(self, line: str, job: RunningJob | None) -> None:
        if job is not None:
            job.last_line = line
        self._screen.print(line)

    def _progress_line(self, job: RunningJob) -> None:
        """Without bars, a line now and then says that the job goes on."""
        all_done = 0 < job.total <= job.done
        if self._screen.bars or not self.shows_progress or all_done:
            return
        now = time.monotonic()
        if now - job.line_at >= min(MOST_LINE_SECONDS, FIRST_LINE_SECONDS * 2**job.lines_printed):
            job.line_at, job.lines_printed = now, job.lines_printed + 1
            self._screen.print(f"  … {job.label}: {job.progress()}")

    def nothing_to_do(self) -> str:
        """The line of a call without jobs."""
        return f"loragrid: nothing to do, everything is finished.{self._where()}"

    def _ended(self) -> str:
        jobs = "1 job" if self._done == 1 else f"{self._done} jobs"
        return f"loragrid: {jobs} done in {duration(time.monotonic() - self._began)}.{self._where()}"

    def _where(self) -> str:
        if self.report is None or not self.report.is_file():
            return ""
        return f" The report: {self.report.resolve()}"


def _event(line: str) -> dict[str, Any] | None:
    """The event that a job wrote with `loragrid.errors`; None for other text."""
    if line.startswith(EVENT):
        with contextlib.suppress(ValueError):
            return json.loads(line.removeprefix(EVENT))
    return None
