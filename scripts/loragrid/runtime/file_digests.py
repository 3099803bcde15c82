"""Results of reading large files, kept in a folder of the user's cache.

Every call of Snakemake asks for the SHA-256 of the data, and every data set for the values of its base's weights.
"""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.paths import user_cache
from loragrid.runtime.atomic_files import read_json, sha256_file, write_json
from loragrid.runtime.delegation.residency import is_resident

# A file that was written so lately may be written again without another time.
SETTLED_SECONDS = 2.0
# A file's path and state → its digest, in a resident worker.
_of_session: dict[tuple[Any, ...], str] = {}


def kept_sha256(path: Path) -> str:
    """SHA-256 of a file's content, read again only if its size, its times or its inode have changed."""
    return kept_result(path, "sha256", sha256_file)


def kept_result(path: Path, what: str, find: Callable[[Path], str]) -> str:
    """`find(path)`, computed again only if the file's size, its times or its inode have changed; `what` names it."""
    state = _state(path)
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]
    kept = user_cache() / "digests" / f"{name}.{what}.json"
    with suppress(UserError, OSError, KeyError, TypeError):
        found = read_json(kept)
        if found["state"] == state:
            return found["result"]
    result = find(path)
    settled = time.time() - path.stat().st_mtime > SETTLED_SECONDS
    if settled and _state(path) == state:
        with suppress(OSError):  # without a cache it takes longer
            write_json(kept, {"state": state, "result": result})
    return result


def session_sha256(path: Path) -> str:
    """SHA-256 of a file's content, which a resident worker reads once while size, times and inode stay as they are."""
    if not is_resident():
        return sha256_file(path)
    state = str(path.resolve()), *_state(path)
    if state in _of_session:
        return _of_session[state]
    digest = sha256_file(path)
    if time.time() - path.stat().st_ctime > SETTLED_SECONDS and (str(path.resolve()), *_state(path)) == state:
        _of_session[state] = digest
    return digest


def _state(path: Path) -> list[Any]:
    """What changes when a file is written: also its time of change, which no program sets."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
