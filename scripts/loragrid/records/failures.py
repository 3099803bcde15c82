"""How a run fails for want of memory or disk, told in one line and kept in `failure.json`."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.errors import Failed, Paused, UserError
from loragrid.records.losses import last_position
from loragrid.runtime.atomic_files import write_json

SCHEMA = 1
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
TORCH_WRITES = ("iostream error", "inline_container", "PytorchStreamWriter")
UNITS_MIB = {"bytes": 2**-20, "kib": 2**-10, "mib": 1.0, "gib": 2.0**10, "tib": 2.0**20, "pib": 2.0**30, "eib": 2.0**40}
WANTED = "(?:tried|Tried|Unable) to allocate AMOUNT"  # torch's words, and numpy's


def out_of_memory(error: BaseException) -> dict[str, Any] | None:
    """Needed and available memory, MiB (None where the error does not tell), if `error` is a failed allocation."""
    for cause in _causes(error):
        text = str(cause)
        kind = type(cause).__name__
        if kind == "OutOfMemoryError" or "CUDA out of memory" in text:
            free = _mib(text, "of which AMOUNT is free")
            return {"where": "GPU", "needed_mib": _mib(text, WANTED), "available_mib": free}
        if isinstance(cause, MemoryError) or "can't allocate memory" in text or "not enough memory" in text:
            return {"where": "host", "needed_mib": _mib(text, WANTED), "available_mib": _free_host_mib()}
    return None


def disk_full(error: BaseException, folder: Path) -> bool:
    """Whether `error` comes from a full disk. Libraries wrap it in errors of their own, so the disk is asked too."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(cause) or "Disk quota exceeded" in str(cause):
            return True
    # torch's archive writer does not say why a write failed.
    texts = " ".join(str(cause) for cause in _causes(error))
    return any(sign in texts for sign in TORCH_WRITES) and not _takes_a_file(folder)


@contextmanager
def failures_told(out: Path, *, run: str) -> Iterator[None]:
    """Make the folder; turn what goes wrong into one line, and leave failure.json where the run can not go on by itself.

    A mistake of the user leaves no new folder: nothing was done in it.
    """
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except Paused:
        raise
    except UserError:
        if new:
            with suppress(OSError):  # not empty: a mistake that was found late
                out.rmdir()
        raise
    except Exception as error:
        failure, reason, more = _explain(error, out=out, run=run)
        with suppress(OSError):  # a full or read-only disk: the line on the terminal has to do
            write_failure(
                out, run=run, reason=reason, message=str(failure), step=last_position(out / "losses.csv")[0], **more
            )
        if failure is error:
            raise
        raise failure from error


def write_failure(folder: Path, *, run: str, reason: str, message: str, step: int | None, **more: Any) -> None:
    """Leave `failure.json`, so that the tables can say why the run has no record."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"schema": SCHEMA, "run": run, "reason": reason, "message": message, "step": step, "at": at} | more
    write_json(folder / "failure.json", content)


def _explain(error: Exception, *, out: Path, run: str) -> tuple[Exception, str, dict[str, Any]]:
    if isinstance(error, Failed):
        return error, error.reason, {}
    if memory := out_of_memory(error):
        shown = {
            key: "an unknown amount" if memory[key] is None else f"{memory[key]} MiB"
            for key in ("needed_mib", "available_mib")
        }
        line = (
            f"run {run} is out of {memory['where']} memory: {shown['needed_mib']} more needed, "
            f"{shown['available_mib']} available; lower its batch or max_length_tokens, or use a larger machine"
        )
        return Failed(line, reason="out_of_memory"), "out_of_memory", memory
    if disk_full(error, out):
        line = f"the disk of {out} is full: make room and run the same command to go on"
        return Failed(line, reason="disk_full"), "disk_full", {}
    if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
        reason = os.strerror(error.errno)
        return (
            UserError(f"{out} cannot be written ({reason}): make it writable, or give another --out"),
            "not_writable",
            {},
        )
    return error, "error", {"error": type(error).__name__}


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _mib(text: str, around: str) -> float | None:
    """The amount of memory that stands in `text` where `around` has its AMOUNT."""
    found = re.search(around.replace("AMOUNT", r"([\d.]+) (bytes|[KMGTPE]iB)"), text)
    return round(float(found[1]) * UNITS_MIB[found[2].lower()], 1) if found else None


def _free_host_mib() -> float | None:
    try:
        return round(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
    except (OSError, ValueError):
        return None


def _takes_a_file(folder: Path) -> bool:
    """Whether a mebibyte can be written: free space by itself does not tell of a quota."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(b"\0" * 2**20)
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    finally:
        probe.unlink(missing_ok=True)
    return True
