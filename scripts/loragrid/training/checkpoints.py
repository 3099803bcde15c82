"""Checkpoints that are whole or not there, and that never come back as something they are not.

A checkpoint is a folder `checkpoint-<step>` with a manifest: the size and SHA-256 of every file, the fingerprint of
what was being trained, and a digest of the manifest itself. It is written under a temporary name, fsynced file by file
and renamed. Nothing in it is opened before all of that agrees, and pickles are refused that would run code.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.errors import Failed, UserError
from loragrid.records.failures import disk_full
from loragrid.runtime.atomic_files import atomic_folder, sha256_file, sha256_json, write_json

SCHEMA = 1
MANIFEST = "manifest.json"
STATE = "state.json"
REQUIRED = frozenset(
    {"adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
    | {"trainer_state.json", STATE}
)
OPTIONAL = frozenset({"scaler.pt"})  # the loss scale of fp16
UNFINISHED = ".saving-"
BROKEN = "broken-"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that verified: its folder, its step, what it was made from and the state of the progress."""

    path: Path
    step: int
    fingerprint: dict[str, Any]
    state: dict[str, Any]


class BrokenCheckpoint(Exception):
    """Why a folder is no whole checkpoint."""


class CheckpointStore:
    """The checkpoints of one run. Whoever uses it holds the run's lock."""

    def __init__(
        self, folder: Path, *, fingerprint: dict[str, Any], keep: int, before_save: Callable[[], None] = lambda: None
    ) -> None:
        """`before_save` may raise to forbid a save, as a trainer that lost the run's lock must."""
        self.folder = folder
        self.before_save = before_save
        self.fingerprint = fingerprint
        self.keep = keep

    def save(self, *, step: int, state: dict[str, Any], write: Callable[[Path], None]) -> Path:
        """Save a checkpoint: `write` puts the trainer's files into the folder it is given; then prune to `keep`.

        On any error the half-written folder is removed and the older checkpoints stay as they were.
        """
        final = self.folder / f"checkpoint-{step}"
        unfinished = self.folder / f"{UNFINISHED}{step}"
        self.before_save()

        def explain(error: BaseException) -> None:
            # Asked while the unfinished files are still there: without them the disk is no longer full.
            if disk_full(error, self.folder):
                raise Failed(
                    f"{self.folder}: the disk is full, so the checkpoint of step {step} was not saved; "
                    "older checkpoints are intact. Fix: make room and run the same command again.",
                    reason="disk_full",
                ) from error

        with atomic_folder(final, temporary=unfinished, on_error=explain) as folder:
            write(folder)
            (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
            # Last, since it holds the digest of every other file.
            write_json(folder / MANIFEST, self._manifest(folder, step))
        self._prune(newest=final)
        return final

    def newest_good(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that verifies; broken ones newer than it are set aside, with a line to `warn`.

        A good checkpoint of something else (another learning rate, data set, library version) is a `UserError` that
        names the first field that differs: going on from it would be silently wrong, deleting it is the user's to say.
        """
        if not self.folder.is_dir():
            return None
        for leftover in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for path in self._folders():
            try:
                found = verify(path)
            except BrokenCheckpoint as reason:
                aside = set_aside(path)
                warn(
                    f"checkpoint {path.name} is not whole ({reason}): set aside as {aside.name}, an older one is tried"
                )
                continue
            self._refuse_other(found)
            return found
        return None

    def remove_all(self) -> None:
        """Remove the folder: checkpoints serve only to go on, and a finished run has nothing to go on with."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _manifest(self, folder: Path, step: int) -> dict[str, Any]:
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in sorted(folder.iterdir())
        }
        manifest = {"schema": SCHEMA, "step": step, "fingerprint": self.fingerprint, "files": files}
        manifest["saved_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        return manifest | {"sha256": sha256_json(manifest)}

    def _folders(self) -> list[Path]:
        """Folders named as checkpoints, newest (highest step) first."""
        named = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in self.folder.iterdir()]
        return [path for _, path in sorted(((int(m[1]), p) for m, p in named if m), reverse=True)]

    def _prune(self, *, newest: Path) -> None:
        """Keep the `keep` newest. The one just written was fsynced and renamed, so the last good one always stays."""
        newest_step = int(newest.name.removeprefix("checkpoint-"))
        older = [path for path in self._folders() if int(path.name.removeprefix("checkpoint-")) < newest_step]
        for path in older[max(self.keep, 1) - 1 :]:
            # Renamed first: a kill in the middle of deleting must not leave a half checkpoint under a good name.
            doomed = path.with_name(f"{UNFINISHED}deleted-{path.name}")
            os.rename(path, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _refuse_other(self, found: Checkpoint) -> None:
        # The run's id follows from its settings: those tell the user more, so it comes last.
        for field in sorted(self.fingerprint.keys() | found.fingerprint.keys(), key=lambda name: (name == "run", name)):
            now, then = self.fingerprint.get(field), found.fingerprint.get(field)
            if now != then:
                raise UserError(
                    f"{found.path}: its {field} was {_shown(then)} and is now {_shown(now)}: set it back to go on, "
                    f"or delete {self.folder} to train this run from the start"
                )


def verify(path: Path) -> Checkpoint:
    """Check a checkpoint folder against its manifest and its pickles against code; raises `BrokenCheckpoint`."""
    try:
        return _verify(path)
    except (KeyError, TypeError, AttributeError) as error:
        raise BrokenCheckpoint(f"{MANIFEST} is malformed ({type(error).__name__}: {error})") from None
    except OSError as error:  # a bad sector or a drive that fails: an older one may still be read
        raise BrokenCheckpoint(f"it cannot be read ({error})") from None


def _verify(path: Path) -> Checkpoint:
    manifest = _read_manifest(path)
    files = manifest["files"]
    if missing := sorted(REQUIRED - files.keys()):
        raise BrokenCheckpoint(f"its manifest lists no {missing[0]}")
    if foreign := sorted(files.keys() - REQUIRED - OPTIONAL):
        raise BrokenCheckpoint(f"its manifest lists {foreign[0]}, which no trainer here writes")
    found = {entry.name for entry in path.iterdir()} - {MANIFEST}
    if unknown := sorted(found - files.keys()):
        raise BrokenCheckpoint(f"it holds {unknown[0]}, which its manifest does not list")
    if missing := sorted(files.keys() - found):
        raise BrokenCheckpoint(f"{missing[0]} is missing")
    for name, expected in files.items():
        _verify_file(path / name, expected)
    for name in files:
        if name.endswith((".pt", ".pth")):
            _refuse_code(path / name)
    state = _read_object(path / STATE)
    return Checkpoint(path=path, step=manifest["step"], fingerprint=manifest["fingerprint"], state=state)


def set_aside(path: Path) -> Path:
    """Rename a broken checkpoint, so that it is never tried again and can still be looked at."""
    for number in range(10_000):
        aside = path.with_name(f"{BROKEN}{path.name}" + (f"-{number}" if number else ""))
        if not aside.exists():
            os.rename(path, aside)
            return aside
    raise UserError(f"{path.parent} holds 10000 broken checkpoints: delete it to train this run from the start")


def _read_manifest(path: Path) -> dict[str, Any]:
    if path.is_symlink() or not path.is_dir() or (path / MANIFEST).is_symlink():
        raise BrokenCheckpoint("it is no plain folder")
    manifest = _read_object(path / MANIFEST)
    digest = manifest.pop("sha256", None)
    if digest != sha256_json(manifest):
        raise BrokenCheckpoint(f"{MANIFEST} does not match its own digest")
    if manifest.get("schema") != SCHEMA:
        raise BrokenCheckpoint(f"{MANIFEST} is of schema {manifest.get('schema')}, not {SCHEMA}")
    if path.name != f"checkpoint-{manifest['step']}":
        raise BrokenCheckpoint(f"{MANIFEST} is of step {manifest['step']}")
    return manifest


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrokenCheckpoint(f"{path.name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenCheckpoint(f"{path.name} cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise BrokenCheckpoint(f"{path.name} holds no object")
    return value


def _verify_file(path: Path, expected: dict[str, Any]) -> None:
    if path.is_symlink() or not path.is_file():  # a link could point anywhere and change after it was checked
        raise BrokenCheckpoint(f"{path.name} is no plain file")
    if path.stat().st_size != expected["bytes"]:
        raise BrokenCheckpoint(f"{path.name} has {path.stat().st_size} bytes, not {expected['bytes']}")
    if sha256_file(path) != expected["sha256"]:
        raise BrokenCheckpoint(f"{path.name} does not match its SHA-256")


def _refuse_code(path: Path) -> None:
    """Read which functions a pickle names, without running any, and refuse all but tensors and numpy's RNG arrays."""
    import torch
    from transformers.trainer_pt_utils import safe_globals

    try:
        with safe_globals():
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # whatever a malformed archive makes torch raise, it is a broken checkpoint
        raise BrokenCheckpoint(f"{path.name} is no file of torch.save ({type(error).__name__})") from None
    if unsafe:
        raise BrokenCheckpoint(f"{path.name} wants to run {unsafe[0]}")


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else text[:77] + "..."
