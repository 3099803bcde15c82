"""SHA-256 of large files, kept in a folder of the user's cache: every call of Snakemake asks for those of the data."""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.paths import user_cache
from loragrid.runtime.atomic_files import read_json, sha256_file, write_json

# A file that was written so lately may be written again without another time.
SETTLED_SECONDS = 2.0


def kept_sha256(path: Path) -> str:
    """SHA-256 of a file's content, read again only if its size, its times or its inode have changed."""
    state = _state(path)
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]
    kept = user_cache() / "digests" / f"{name}.json"
    with suppress(UserError, OSError, KeyError, TypeError):
        found = read_json(kept)
        if found["state"] == state:
            return found["sha256"]
    digest = sha256_file(path)
    settled = time.time() - path.stat().st_mtime > SETTLED_SECONDS
    if settled and _state(path) == state:
        with suppress(OSError):  # without a cache it takes longer
            write_json(kept, {"state": state, "sha256": digest})
    return digest


def _state(path: Path) -> list[Any]:
    """What changes when a file is written: also its time of change, which no program sets."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
