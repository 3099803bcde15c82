"""Failures of a run: one line for the user, and `failure.json` for the tables."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.errors import Failed, Paused, UserError, full_disk_failure, one_line
from loragrid.full_disk import DISK_FULL, error_chain, is_full_disk
from loragrid.records.losses import last_position
from loragrid.runtime.atomic_files import write_json

SCHEMA = 1
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
TORCH_WRITE_ERRORS = ("iostream error", "inline_container", "PytorchStreamWriter")
UNITS_MIB = {"bytes": 2**-20, "kib": 2**-10, "mib": 1.0, "gib": 2.0**10, "tib": 2.0**20, "pib": 2.0**30, "eib": 2.0**40}
# How torch and numpy write what they wanted, and how torch writes what was left.
NEEDED = "(?:tried|Tried|Unable) to allocate AMOUNT"
FREE = "of which AMOUNT is free"


def out_of_memory(error: BaseException) -> dict[str, Any] | None:
    """The kind of memory that ran out if `error` is a failed allocation, else None.

    Keys: `where` ("GPU" or "host"), `needed_mib` and `available_mib` (MiB, None if unknown).
    """
    # Libraries wrap a failed allocation in errors of their own, so the whole chain is searched.
    for cause in error_chain(error):
        text = str(cause)
        if type(cause).__name__ == "OutOfMemoryError" or "CUDA out of memory" in text:
            return {"where": "GPU", "needed_mib": _mib(text, NEEDED), "available_mib": _mib(text, FREE)}
        if isinstance(cause, MemoryError) or "can't allocate memory" in text or "not enough memory" in text:
            return {"where": "host", "needed_mib": _mib(text, NEEDED), "available_mib": _free_host_mib()}
    return None


def memory_failure(memory: dict[str, Any], *, subject: str, fix: str) -> Failed:
    """The one-line failure of a `subject` that did not fit; `memory` comes from `out_of_memory`."""
    needed, available = (_amount(memory[key]) for key in ("needed_mib", "available_mib"))
    line = f"{subject}: out of {memory['where']} memory ({needed} more needed, {available} available). Fix: {fix}."
    return Failed(line, reason="out_of_memory")


@contextmanager
def model_must_fit(model: str) -> Iterator[None]:
    """Raise `Failed`, with figures and the fix, if memory runs out while the block loads `model`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        memory = out_of_memory(error)
        if memory is None:
            raise
        fix = "use a lower precision or a smaller model"
        raise memory_failure(memory, subject=f"model {model}", fix=fix) from error


def disk_full(error: BaseException, folder: Path) -> bool:
    """Whether `error` comes from a full disk or an exhausted quota."""
    if is_full_disk(error):
        return True
    # torch's archive writer does not say why a write failed, so the disk itself is tried.
    texts = " ".join(str(cause) for cause in error_chain(error))
    return any(sign in texts for sign in TORCH_WRITE_ERRORS) and not _can_write(folder)


@contextmanager
def record_failures(out: Path, *, run: str) -> Iterator[None]:
    """Turn an error of the block into one line, and write failure.json if the run cannot continue.

    Creates the folder. A mistake of the user leaves no new folder, because nothing was done in it.
    """
    new = not out.exists()
    try:
        # Inside the block, so that a folder that cannot be created is one line too.
        out.mkdir(parents=True, exist_ok=True)
        yield
    except Paused:
        raise
    except UserError:
        if new:
            with suppress(OSError):  # The folder has content if the mistake was found late.
                out.rmdir()
        raise
    except Exception as error:
        failure, reason, more = _explain(error, out=out, run=run)
        with suppress(OSError):  # On a full or read-only disk only the terminal gets the reason.
            step = last_position(out / "losses.csv")[0]
            write_failure(out, run=run, reason=reason, message=str(failure), step=step, **more)
        if failure is error:
            raise  # A bug keeps its traceback.
        raise failure from error


def write_failure(folder: Path, *, run: str, reason: str, message: str, step: int | None, **more: Any) -> None:
    """Write `failure.json`, from which the tables take the reason why a run has no record."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"schema": SCHEMA, "run": run, "reason": reason, "message": message, "step": step, "at": at} | more
    write_json(folder / "failure.json", content)


# How `loragrid.errors.run_main` begins the last line of a job that failed.
FAILURE_LINES = ("error: ", "failed: ")
LOG_TAIL_BYTES = 20_000


def log_tail(log: Path) -> list[str]:
    """The last lines of a job's log, each without control characters; none if there is no log."""
    if not log.is_file():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        return [one_line(line) for line in file.read().decode(errors="replace").splitlines()[-20:]]


def logged_failure(log: Path) -> str | None:
    """The line with which a job says in its log that it failed; None if it does not."""
    # Libraries may print something after the job's own last line.
    lines = [line for line in log_tail(log) if line.startswith(FAILURE_LINES)]
    return lines[-1] if lines else None


def _explain(error: Exception, *, out: Path, run: str) -> tuple[Exception, str, dict[str, Any]]:
    """The exception to raise instead, the reason in a word, and further keys of failure.json."""
    if isinstance(error, Failed):
        return error, error.reason, {}
    if memory := out_of_memory(error):
        fix = "lower its batch or max_length_tokens, or use a larger machine"
        failure = memory_failure(memory, subject=f"run {run}", fix=fix)
        return failure, failure.reason, memory
    if disk_full(error, out):
        failure = full_disk_failure(error, out)
        return failure, failure.reason, {}
    if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
        reason = os.strerror(error.errno)
        line = f"{out}: cannot be written ({reason}). Fix: make it writable, or give another --out."
        return UserError(line), "not_writable", {}
    return error, "error", {"error": type(error).__name__}


def _mib(text: str, pattern: str) -> float | None:
    """The amount of memory at the place of AMOUNT in `pattern`, MiB."""
    found = re.search(pattern.replace("AMOUNT", r"([\d.]+) (bytes|[KMGTPE]iB)"), text)
    if found is None:
        return None
    return round(float(found[1]) * UNITS_MIB[found[2].lower()], 1)


def _amount(mib: float | None) -> str:
    return "an unknown amount" if mib is None else f"{mib} MiB"


def _free_host_mib() -> float | None:
    try:
        return round(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
    except (OSError, ValueError):
        return None


def _can_write(folder: Path) -> bool:
    """Whether a mebibyte can be written. Free space alone would not show a quota."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(b"\0" * 2**20)
    except OSError as error:
        return error.errno not in DISK_FULL
    finally:
        probe.unlink(missing_ok=True)
    return True
