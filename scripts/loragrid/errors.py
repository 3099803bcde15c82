"""How a stage ends (done, failed, user error, paused) and where its output goes while it runs."""

import argparse
import contextlib
import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

from loragrid.full_disk import full_disk_line, is_full_disk

EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_PAUSED = 75  # EX_TEMPFAIL of sysexits.h: try the same command again
MOST_SHOWN = 30  # mistakes of one file; a file of another kind has hundreds
EXIT_STOPPED = 130  # 128 + SIGINT, as shells say it
# What the system says of a path that the user may not use, or that is a file where a folder is needed.
REFUSED_PATH = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)

# Set for the jobs of a call that has a display (loragrid/workflow/terminal/): the only writer on the terminal, which
# reads what they print there. A line of a job is then EVENT and a JSON object with its kind and the job's log.
DISPLAY, EVENT = "LORAGRID_DISPLAY", "\x1e"

_terminal: TextIO | None = None
_log: Path | None = None


class UserError(Exception):
    """A mistake the user can fix. One line: FILE or KEY, what is wrong (the value found), the
    fix."""


class UserErrors(UserError):
    """Several mistakes of the user, such as all of a file, each a line of its own."""

    def __init__(self, errors: Iterable[UserError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(one_line(str(error)) for error in self.errors))


def raise_errors(errors: Iterable[UserError]) -> None:
    """Raise one `UserError` as it is and several as `UserErrors`; nothing for none."""
    found = list(errors)
    if len(found) == 1:
        raise found[0]
    if found:
        raise UserErrors(found)


def each_error(error: UserError) -> tuple[UserError, ...]:
    """The mistakes that an error is about, one or several."""
    return error.errors if isinstance(error, UserErrors) else (error,)


def error_lines(error: UserError) -> list[str]:
    """What a user reads of an error: a line for each mistake, up to `MOST_SHOWN`."""
    found = each_error(error)
    lines = [f"error: {one_line(str(each))}" for each in found[:MOST_SHOWN]]
    if len(found) > MOST_SHOWN:
        lines.append(f"error: {len(found) - MOST_SHOWN} more mistakes. Fix: correct these first.")
    return lines


class Failed(Exception):
    """The work cannot be finished for a reason outside the code, such as memory or disk. One line.

    `reason` is the same as one word, for failure.json.
    """

    def __init__(self, line: str, *, reason: str = "failed") -> None:
        super().__init__(line)
        self.reason = reason


class Paused(Exception):
    """The work stopped early on purpose and continues when the same command is run again."""


def run_main(main: Callable[[], None]) -> None:
    """Run a stage's `main` and turn its end into one line and an exit status.

    Exit status: 0 done, 1 failed, 2 user error, 75 paused, 130 stopped by Ctrl-C. With the option
    of `log_option`, a bug's traceback is in the log.
    """
    _take_ctrl_c()
    try:
        main()
    except UserError as error:
        *others, last = error_lines(error)
        for line in others:
            print_line(line)
        _end(last, EXIT_USER_ERROR)
    except Failed as failure:
        _end(f"failed: {failure}", EXIT_FAILED)
    except Paused as pause:
        _end(str(pause), EXIT_PAUSED)
    except KeyboardInterrupt:
        # The terminal and snakemake may both send the signal; a second exception would interrupt the end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _end("stopped by Ctrl-C", EXIT_STOPPED)
    except Exception as bug:
        if is_full_disk(bug):
            _end(f"failed: {full_disk_failure(bug)}", EXIT_FAILED)
        if isinstance(bug, OSError) and bug.errno in REFUSED_PATH and bug.filename is not None:
            reason = os.strerror(bug.errno)
            _end(
                f"error: {bug.filename}: {reason}. Fix: change its permissions, or give another path.", EXIT_USER_ERROR
            )
        if _log is None:
            raise
        traceback.print_exc()
        _end(f"failed: {type(bug).__name__}: {bug} (traceback in {_log})", EXIT_FAILED)


def _take_ctrl_c() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` from now on, where `delegate_job` has left it to the system."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def full_disk_failure(error: BaseException, folder: Path | None = None, *, lost: str = "") -> Failed:
    """The failure of whatever met a full disk, with the line of `full_disk_line`."""
    return Failed(full_disk_line(error, folder, lost=lost), reason="disk_full")


def log_option() -> argparse.ArgumentParser:
    """A parent for a stage's argument parser, with `--log FILE`.

    As soon as the option is parsed, all output goes to that file, and only the lines of
    `print_line` go to the terminal too.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--log", type=Path, action=_Redirect, metavar="FILE", help="file that takes the output")
    return parser


def summary_line(docstring: str | None) -> str:
    """The first line of a module's docstring, for `--help`; empty under `python -OO`, which has no docstrings."""
    return (docstring or "").partition("\n")[0]


class _Redirect(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        _redirect(values)


def print_line(line: str) -> None:
    """Print one line on the terminal and in the job's log, if it has one."""
    _print(line, "line")


def print_result(line: str) -> None:
    """Print one line that a display leaves out, because it says the job's result itself."""
    _print(line, "result")


def print_progress(line: str, *, done: int, total: int, unit: str, text: str, seconds_left: float | None) -> None:
    """Print one line that a display shows as a bar: `done` of `total` units, beside it `text` and the time left."""
    _print(line, "progress", done=done, total=total, unit=unit, text=one_line(text), seconds_left=seconds_left)


def _print(line: str, kind: str, **progress: Any) -> None:
    line = one_line(line)
    # The log may be on a full disk; the terminal still gets the line.
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    if _terminal is not None:
        _write_on_terminal(line, kind, **progress)


def _write_on_terminal(line: str, kind: str, **progress: Any) -> None:
    """Write on the terminal past the stream: a terminal that was closed, or the display of a snakemake that was killed,
    must not end a training."""
    if os.environ.get(DISPLAY):
        line = EVENT + json.dumps({"kind": kind, "log": str(_log), "line": line} | progress)
    with contextlib.suppress(OSError):
        os.write(_terminal.fileno(), f"{line}\n".encode())


def print_line_unbuffered(line: str) -> None:
    """Print one line from a signal handler.

    Bypasses the streams: the signal may have interrupted a write, and a stream refuses a second
    write within the first.
    """
    line = one_line(line)
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
    if _terminal is not None:
        _write_on_terminal(line, "line")


def output_options() -> tuple[list[str], TextIO | None]:
    """Command-line options and stderr for another process of this job, so that both write to the
    same places."""
    return (["--log", str(_log)] if _log else []), _terminal


def reset_output() -> None:
    """Forget the log and the terminal of the last job, in a process that does several."""
    global _terminal, _log
    if _terminal is not None:
        _terminal.close()
    _terminal = _log = None


def first_line(error: BaseException) -> str:
    """The first 300 characters of the first line of an exception's message; its type when there is
    no message."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def one_line(text: str) -> str:
    """Fold a message into a single line without control characters, so that untrusted text cannot
    forge a second one."""
    return "".join(ch if ch.isprintable() else " " for ch in " ".join(text.split()))


def _end(line: str, status: int) -> None:
    _print(line, "end")
    raise SystemExit(status) from None


def _redirect(log: Path) -> None:
    """Send file descriptors 1 and 2 to the log, keeping the terminal for `print_line`. Done here
    and not by a shell pipe to `tee`, which a signal to the process group would end before the
    trainer has written its checkpoint."""
    global _terminal, _log
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    _log = log
    _terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
