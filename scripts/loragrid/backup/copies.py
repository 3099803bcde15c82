"""The copies of one thing at a place: of the checkpoints of a run, of a finished run, a score or a data set.

A copy is a manifest `NAME.json` and the files that it lists, each under its SHA-256 in `files/`. The manifest is
written after its files and removed before them, and holds its own digest: a copy is whole or it is not there.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from loragrid.backup.places import PARTIAL, Place, PlaceError
from loragrid.runtime.atomic_files import fsync_tree, sha256_file, sha256_json

SCHEMA = 1
FILES = "files"
RESTORING = ".restoring"
CHECKPOINTS = "checkpoints"
MANIFEST = re.compile(r"([\w.@-]+)\.json")


@dataclass(frozen=True, kw_only=True)
class CopiedFile:
    """A file of a copy: its size in bytes, SHA-256, and time of modification (ns of the Unix clock)."""

    bytes: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A whole copy: its name, and its files by their paths."""

    name: str
    files: Mapping[str, CopiedFile]


class BrokenCopy(Exception):
    """Why the files of a copy are not those that its manifest lists."""


class CopyStore:
    """The copies in one folder of a place. One machine at a time may write them."""

    def __init__(self, place: Place, folder: str) -> None:
        self.place, self.folder = place, folder
        # Files that this process has written whole. Those of others are written again: a power cut may have emptied
        # them, and most are small.
        self._written: set[str] = set()

    def names(self) -> list[str]:
        """Names of the manifests, whole or not."""
        paths = [path.removeprefix(f"{self.folder}/") for path in self.place.sizes(self.folder)]
        return sorted(found[1] for path in paths if (found := MANIFEST.fullmatch(path)))

    def read(self, name: str) -> Copy | None:
        """The copy of that name, or None if its manifest is not whole or not of this form."""
        content = self.place.read(f"{self.folder}/{name}.json")
        try:
            manifest = json.loads(content)
            digest = manifest.pop("sha256")
            if digest != sha256_json(manifest) or manifest["schema"] != SCHEMA or manifest["name"] != name:
                return None
            files = {path: CopiedFile(**facts) for path, facts in manifest["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        safe = all(_is_safe(path) and re.fullmatch("[0-9a-f]{64}", file.sha256) for path, file in files.items())
        return Copy(name=name, files=files) if safe else None

    def write(self, name: str, files: Mapping[str, Path | bytes]) -> None:
        """Write a copy; `files` are files of this machine, or contents, by the paths that they are restored to."""
        facts = {path: _facts(content) for path, content in files.items()}
        new = {}
        for path, content in files.items():
            digest = facts[path].sha256
            if digest not in self._written:
                new[f"{self.folder}/{FILES}/{digest}"] = content
        manifest = {"schema": SCHEMA, "name": name}
        manifest["files"] = {path: vars(fact) for path, fact in facts.items()}
        manifest["saved_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps(manifest | {"sha256": sha256_json(manifest)}, indent=1)
        self.place.write(new | {f"{self.folder}/{name}.json": text.encode()})
        self._written |= {fact.sha256 for fact in facts.values()}

    def keep_only(self, names: Collection[str]) -> None:
        """Remove all other copies, and the files that no copy has."""
        found = [path.removeprefix(f"{self.folder}/") for path in self.place.sizes(self.folder)]
        manifests = {path: match[1] for path in found if (match := MANIFEST.fullmatch(path))}
        kept = [copy for name in names if f"{name}.json" in found and (copy := self.read(name))]
        used = {f"{FILES}/{file.sha256}" for copy in kept for file in copy.files.values()}
        doomed = [path for path, name in manifests.items() if name not in names]
        unused = [path for path in found if path.startswith(f"{FILES}/") and path not in used]
        doomed += [path for path in found if path.endswith(PARTIAL) and path not in unused]
        self.place.remove([f"{self.folder}/{path}" for path in (*doomed, *unused)])
        self._written = {path.removeprefix(f"{FILES}/") for path in used} & self._written

    def restore(self, copy: Copy, into: Path, *, last: str) -> None:
        """Put the files of a copy into a folder; `last` is the path that makes it whole there, a file or a checkpoint.

        Nothing is changed in `into` before every file is here and verified. Raises `BrokenCopy` if one is gone or not
        what the manifest lists, and `PlaceError` if a file cannot be read there or written here.
        """
        fetched = into / RESTORING
        shutil.rmtree(fetched, ignore_errors=True)
        try:
            for path, file in copy.files.items():
                self._fetch(file, fetched / path)
            fsync_tree(fetched)
            for path in sorted(_parts(fetched), key=lambda path: path == fetched / last):
                _move(path, into / path.relative_to(fetched))
        except OSError as error:
            raise PlaceError(f"{type(error).__name__}: {error}") from error
        finally:
            shutil.rmtree(fetched, ignore_errors=True)

    def _fetch(self, file: CopiedFile, to: Path) -> None:
        try:
            self.place.fetch(f"{self.folder}/{FILES}/{file.sha256}", to)
        except PlaceError as error:
            # A place may lose a single file, by hand or by a drive's own clean-up. An older copy can be whole.
            if isinstance(error.__cause__, FileNotFoundError):
                raise BrokenCopy(f"{to.name} is gone") from None
            raise
        if to.stat().st_size != file.bytes or sha256_file(to) != file.sha256:
            raise BrokenCopy(f"{to.name} does not match its SHA-256")
        # Snakemake compares the times of files.
        os.utime(to, ns=(file.mtime_ns, file.mtime_ns))


def _facts(content: Path | bytes) -> CopiedFile:
    if isinstance(content, bytes):
        digest = hashlib.sha256(content).hexdigest()
        return CopiedFile(bytes=len(content), sha256=digest, mtime_ns=time.time_ns())
    status = content.stat()
    return CopiedFile(bytes=status.st_size, sha256=sha256_file(content), mtime_ns=status.st_mtime_ns)


def _is_safe(path: str) -> bool:
    """Whether a path of a manifest stays in the folder that it is restored to."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and "\\" not in path and ".." not in parts and parts[0] != RESTORING


def _parts(folder: Path) -> list[Path]:
    """What is moved as one: files and folders at the top, and single checkpoints."""
    found = []
    for path in folder.iterdir():
        found += path.iterdir() if path.name == CHECKPOINTS else [path]
    return sorted(found)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_dir():
        os.replace(source, target)
        return
    # Renamed and not removed: a kill while many files are removed would leave neither folder.
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.replace(target, old)
    os.replace(source, target)
    shutil.rmtree(old, ignore_errors=True)
