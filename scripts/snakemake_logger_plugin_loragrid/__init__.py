"""The logger plugin `loragrid` of Snakemake, which workflow/profiles/default asks for.

Snakemake finds plugins by the name of their package. This one maps Snakemake's events to the display in
`loragrid.workflow.terminal`. A dry run, `--verbose`, `--printshellcmds` and `--debug-dag` look as without it;
Snakemake's own log file in `.snakemake/log/` has all that the display leaves out.
"""

import logging
import sys
from types import TracebackType
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

# What Snakemake says of itself, by the beginning of the message.
UNSHOWN = (
    "Assuming unrestricted shared filesystem usage",
    "Building DAG of jobs",
    "Complete log(s)",
    "Conda environments: ignored",
    "Config file ",
    "DAG of jobs will be updated",
    "Elapsed time",
    "Exiting because a job execution failed",
    "Group jobs: inactive",
    "Removing output files of failed job",
    "Select jobs to execute",
    "Shutting down",
    "Singularity containers: ignored",
    "Terminating processes on user request",
    "Updating checkpoint dependencies",
    "Using shell",
    "WorkflowError:\nAt least one job did not complete successfully",
)
UNSHOWN_EVENTS = (
    LogEvent.WORKFLOW_STARTED,
    LogEvent.SHELLCMD,
    LogEvent.JOB_STARTED,
    LogEvent.RUN_INFO,
    LogEvent.RESOURCES_INFO,
    LogEvent.GROUP_INFO,
    LogEvent.GROUP_ERROR,  # an event of each of its jobs follows
    LogEvent.DEBUG_DAG,
    LogEvent.RULEGRAPH,
)
LOCKED = (
    "error: {folder}: another snakemake works in this folder, or one was killed here. "
    "Fix: wait for the other one; if none is running, run `snakemake --unlock`, then the same command again."
)
INTERRUPTED = "loragrid: interrupted; run the same command to start again"


def print_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught exception as Python does, but Ctrl-C in one line."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"\n{INTERRUPTED}", file=sys.stderr, flush=True)
    else:
        sys.__excepthook__(kind, error, trace)


# While it runs jobs, Snakemake stops them after Ctrl-C and says so; before that it would print a traceback. Its
# plugins are the first code of this package that it imports.
sys.excepthook = print_uncaught


class LogHandler(LogHandlerBase):
    """Hands Snakemake's events to `display`; None if they are printed as Snakemake does."""

    def __post_init__(self) -> None:
        from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

        settings = self.common_settings
        stream = sys.stderr
        if settings.stdout:
            stream = sys.stdout
        self._snakemake = ColorizingTextHandler(nocolor=settings.nocolor, stream=stream)
        self._snakemake.setFormatter(DefaultFormatter(settings.quiet, settings.show_failed_logs))
        filtered = (settings.quiet, settings.debug_dag, settings.verbose, settings.dryrun, settings.printshellcmds)
        self._snakemake.addFilter(DefaultFilter(*filtered))
        self._exit_texts: list[str] = []
        self.display = None
        if not (settings.dryrun or settings.verbose or settings.debug_dag or settings.printshellcmds):
            from loragrid.workflow.terminal.display import Display

            quiet = {kind.name.lower() for kind in settings.quiet or ()}
            self._silent = "all" in quiet
            shows_jobs = not quiet & {"all", "rules"}
            self.display = Display(shows_jobs=shows_jobs, shows_progress=not quiet & {"all", "progress"})

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        try:
            if self.display is None:
                self._snakemake.handle(record)
            else:
                self._show(record, getattr(record, "event", None))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Give the terminal back."""
        if self.display is not None:
            self.display.close()
        super().close()

    def _show(self, record: logging.LogRecord, event: LogEvent | None) -> None:
        values = record.__dict__
        if event == LogEvent.JOB_INFO:
            self.display.job_began(values["jobid"], values)
        elif event == LogEvent.JOB_FINISHED:
            self.display.job_finished(values["job_id"])
        elif event == LogEvent.JOB_ERROR:
            self.display.job_failed(values["jobid"], values, self._exit_text(values))
        elif event == LogEvent.PROGRESS:
            self.display.count_jobs(values["total"])
        elif event == LogEvent.ERROR:
            self._show_error(record)
        elif event not in UNSHOWN_EVENTS:
            self._show_message(record)

    def _show_error(self, record: logging.LogRecord) -> None:
        from pathlib import Path

        text = record.getMessage()
        if getattr(record, "exception", None) == "LockException":
            self.display.print(LOCKED.format(folder=Path.cwd()))
        elif "KeyboardInterrupt" in text:  # within a function of a rule
            self.display.print(INTERRUPTED)
        elif "CalledProcessError" in text:
            # The event of the job that failed follows; it says everything but the exit status.
            self._exit_texts.append(text)
        else:
            self._show_message(record)

    def _exit_text(self, job: dict[str, Any]) -> str:
        log = next(iter(job["log"] or ()), None)
        found = [text for text in self._exit_texts if log is not None and str(log) in text]
        self._exit_texts = [text for text in self._exit_texts if text not in found]
        return found[-1] if found else ""

    def _show_message(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno < logging.INFO or not text or text == "None" or text.startswith(UNSHOWN):
            return
        if record.levelno < logging.WARNING and self._silent:
            return
        if text.startswith("Nothing to be done"):
            text = self.display.nothing_to_do()
        self.display.print(text)

    @property
    def writes_to_stream(self) -> bool:
        """True: the place of Snakemake's own handler."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """False."""
        return False

    @property
    def has_filter(self) -> bool:
        """True: what is shown is decided here."""
        return True

    @property
    def has_formatter(self) -> bool:
        """True."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """False."""
        return False
