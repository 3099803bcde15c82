"""Atomic files and folders, whole or absent: written under a temporary name, fsynced, renamed. And their digests."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loragrid.errors import UserError

NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write `content` so that a reader sees the old file or the new one, never half of it, even
    after a power cut."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a failed write does not say where
        raise
    fsync_folder(path.parent)


def write_text(path: Path | str, text: str) -> None:
    """`write_bytes` for text, UTF-8."""
    write_bytes(path, text.encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same keys as CSV; an empty file if there are none."""
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, buffer.getvalue())


def write_json(path: Path | str, value: Any) -> None:
    """`write_bytes` for JSON: two-space indent, keys in the order given, NaN allowed (Python's
    `NaN`)."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


@contextmanager
def atomic_folder(
    final: Path,
    *,
    temporary: Path | None = None,
    on_error: Callable[[BaseException], None] = lambda error: None,
) -> Iterator[Path]:
    """Yield a folder to fill that becomes `final` when the block ends: readers see all of it or
    none.

    Its files are fsynced before it is renamed. An existing `final` is replaced. On any error the
    temporary folder is removed and `final` stays as it was; `on_error` runs before the removal and
    may raise a clearer error. `temporary`, by default `final`.partial, is on the file system of
    `final`.
    """
    temporary = temporary or final.with_name(f"{final.name}.partial")
    replaced = temporary.with_name(f"{temporary.name}.replaced")
    if replaced.exists() and not final.exists():
        os.rename(replaced, final)  # an earlier process was killed between the two renames below
    for leftover in (temporary, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        # Content first, name second: after a power cut the final name must not show empty files.
        fsync_tree(temporary)
        replace_folder(temporary, final)
    except BaseException as error:
        try:
            on_error(error)
        finally:
            if replaced.exists() and not final.exists():
                os.rename(replaced, final)
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def replace_folder(folder: Path, final: Path) -> None:
    """Rename `folder` to `final` beside it, in place of an existing one; on any error that one stays."""
    replaced = folder.with_name(f"{folder.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        # Moved, not deleted: a kill halfway through a deletion would leave half a folder under
        # the final name.
        os.rename(final, replaced)
    try:
        os.rename(folder, final)
        fsync_folder(final.parent)
    except BaseException:
        if replaced.exists() and not final.exists():
            os.rename(replaced, final)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def fsync_tree(folder: Path) -> None:
    """Make the content of `folder`, subfolders included, survive a power cut."""
    for path in folder.rglob("*"):
        if path.is_dir():
            fsync_folder(path)
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fsync_folder(folder)


def check_writable(folder: Path) -> None:
    """Raise `UserError` if nothing can be written in `folder`, or where it would have to be
    made."""
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"{folder} cannot be written. Fix: choose another folder with --directory, or change its permissions."
        )


def read_json(path: Path | str) -> Any:
    """Read a JSON file; a missing or broken one is a `UserError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Fix: run the stage that makes it.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}). Fix: delete it and run its stage again.") from None


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(content: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no blanks): equal settings, equal
    digest. A read-only map, as settings have them, counts as the map that it shows."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


def fsync_folder(folder: Path | str) -> None:
    """Make a rename inside `folder` survive a power cut (POSIX: a folder's entries are synced on
    their own).

    Some network drives cannot fsync a folder; that is ignored.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
