"""Where the display's lines go: a terminal, with bars of the running jobs below them, or a file, line by line."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from loragrid.workflow.terminal.running_job import RunningJob

# More rows would push the lines above them out of a small window.
SHOWN_JOBS = 8
BAR_WIDTH = 24
# Red, the library's own, is the colour of failures here.
BAR_STYLES = {"complete_style": "green", "finished_style": "green", "pulse_style": "green"}


@dataclass(frozen=True)
class Snapshot:
    """The state that bars show: the running jobs, how many jobs are done, and a text on the whole call."""

    jobs: Sequence[RunningJob]
    done: int
    total: int
    text: str


class LineScreen:
    """Writes lines to a file, a pipe or a terminal without cursor control."""

    bars = False

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def print(self, line: str) -> None:
        """Write a line."""
        # A closed terminal is no reason to end the study.
        with contextlib.suppress(OSError, ValueError):
            print(line, file=self._file, flush=True)

    def close(self) -> None:
        """Nothing is left to remove."""


class BarScreen:
    """Writes lines above bars that it draws again several times a second."""

    bars = True

    def __init__(self, file: TextIO, snapshot: Callable[[], Snapshot]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._snapshot = snapshot
        self._console = Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live = Live(
            console=self._console,
            get_renderable=lambda: bars(snapshot()),
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        # A process that is killed could not show it again.
        self._console.show_cursor(True)

    def print(self, line: str) -> None:
        """Write a line above the bars."""
        with contextlib.suppress(OSError, ValueError):
            self._console.print(line, style=_style(line))

    def close(self) -> None:
        """Remove the bars."""
        with contextlib.suppress(OSError, ValueError):
            self._live.stop()


def has_cursor(file: TextIO) -> bool:
    """Whether a file is a terminal on which bars can be drawn."""
    # A notebook gives its commands a terminal whose cursor it cannot move.
    in_notebook = "JPY_PARENT_PID" in os.environ
    return file.isatty() and os.environ.get("TERM") not in (None, "", "dumb") and not in_notebook


def bars(snapshot: Snapshot):
    """The rows of the running jobs and one of all jobs, as a table of rich."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, max_width=40)
    table.add_column(width=BAR_WIDTH)
    table.add_column(no_wrap=True)
    for job in snapshot.jobs[:SHOWN_JOBS]:
        # Before its first number a bar only moves.
        bar = ProgressBar(total=job.total or None, completed=job.done, width=BAR_WIDTH, **BAR_STYLES)
        table.add_row(Text(job.label), bar, Text(job.progress() or "starting"))
    if len(snapshot.jobs) > SHOWN_JOBS:
        table.add_row(Text(f"and {len(snapshot.jobs) - SHOWN_JOBS} more"))
    whole = ProgressBar(total=max(1, snapshot.total), completed=snapshot.done, width=BAR_WIDTH, **BAR_STYLES)
    table.add_row(Text("all jobs"), whole, Text(snapshot.text))
    return table


def _style(line: str) -> str:
    if " failed: " in line or line.startswith(("error: ", "failed: ")):
        return "red"
    if " paused: " in line:
        return "yellow"
    return ""
