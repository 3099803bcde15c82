"""A full disk: whether an error comes from one, and the line that says where, why, and what can be deleted."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_DISK_MESSAGES = tuple(os.strerror(number) for number in DISK_FULL)


def is_full_disk(error: BaseException) -> bool:
    """Whether `error`, or an error that led to it, comes from a full disk or an exhausted quota."""
    # Libraries wrap the system's error in their own and keep only its text.
    return _full_disk_reason(error) is not None


def full_disk_line(error: BaseException, folder: Path | None = None, *, lost: str = "") -> str:
    """What a user reads of a full disk, one line; `folder` is where the write was, if the error does not say.

    `lost`: what was not written, as the end of a clause; everything else is kept.
    """
    known = folder or _place_of(error)
    place = known or Path.cwd()
    reason = _full_disk_reason(error) or FULL_DISK_MESSAGES[0]
    free = _free_room(place) if known else ""
    return (
        f"{place}: the disk is full{lost} ({reason}{free}). "
        f"Fix: free space there ({_what_to_free(place)}), then run the same command again."
    )


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and the errors that led to it."""
    seen: set[int] = set()  # An exception can be its own context's context.
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _full_disk_reason(error: BaseException) -> str | None:
    for cause in error_chain(error):
        if isinstance(cause, OSError) and cause.errno in DISK_FULL:
            return os.strerror(cause.errno)
        found = [message for message in FULL_DISK_MESSAGES if message in str(cause)]
        if found:
            return found[0]
    return None


def _place_of(error: BaseException) -> Path | None:
    """The folder in which the write failed; None if the error names no file."""
    for cause in error_chain(error):
        if isinstance(cause, OSError) and cause.filename is not None and not isinstance(cause.filename, int):
            return Path(os.fsdecode(cause.filename)).parent
    return None


def _free_room(place: Path) -> str:
    """The free space; empty if the system does not say."""
    with suppress(OSError):
        return f", {shutil.disk_usage(place).free / 2**20:.0f} MiB free"
    return ""


def _what_to_free(place: Path) -> str:
    """What can be deleted on that disk without losing this study's work."""
    home = Path.home() / ".cache"
    models = Path(os.environ.get("HF_HOME", home / "huggingface"))
    temporary = Path(os.environ.get("TMPDIR", "/tmp"))
    candidates = {models: "downloaded again when needed", home / "pip": "", temporary: ""}
    named = ["results of other studies"]
    for path, why in candidates.items():
        with suppress(OSError):
            if path.stat().st_dev == place.stat().st_dev:
                named.append(f"{path}, {why}" if why else str(path))
    return "; ".join(named)
