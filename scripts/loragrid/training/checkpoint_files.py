"""The files of a checkpoint: its manifest, the digest of every file, and no code in its pickles.

Nothing is loaded before all of that agrees.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.models.adapter_files import ADAPTER_WEIGHTS, MODEL_WEIGHTS
from loragrid.runtime.atomic_files import sha256_file, sha256_json, write_json

SCHEMA = 1
MANIFEST = "manifest.json"
STATE = "state.json"
REQUIRED = frozenset({"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", STATE})
# The trained weights: an adapter, or those of a whole model.
ADAPTER_FILES = frozenset({ADAPTER_WEIGHTS, "adapter_config.json"})
MODEL_FILES = frozenset({MODEL_WEIGHTS})
# The loss scale, which only fp16 has.
OPTIONAL = frozenset({"scaler.pt"})
# Field of a fingerprint: the number of processes, each with random states of its own.
GPUS = "training.gpus"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: folder, step, fingerprint of its run, and the state for `Progress`."""

    path: Path
    step: int
    fingerprint: dict[str, Any]
    state: dict[str, Any]


class BrokenCheckpoint(Exception):
    """Why a folder is not a complete checkpoint."""


def rng_file(rank: int) -> str:
    """Name of the file with the random states of a process of the run."""
    return f"rng_state_{rank}.pth" if rank else "rng_state.pth"


def write_manifest(folder: Path, *, step: int, fingerprint: dict[str, Any]) -> None:
    """Write the manifest of a folder whose other files are complete."""
    files = {}
    for path in sorted(folder.iterdir()):
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    manifest = {"schema": SCHEMA, "step": step, "fingerprint": fingerprint, "files": files}
    manifest["saved_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / MANIFEST, manifest | {"sha256": sha256_json(manifest)})


def verify(path: Path) -> Checkpoint:
    """The checkpoint in a folder; raises `BrokenCheckpoint` unless manifest and files agree."""
    try:
        return _verify(path)
    except (KeyError, TypeError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise BrokenCheckpoint(f"{MANIFEST} is malformed ({detail})") from None
    except OSError as error:
        # A bad sector, or a drive that fails: an older checkpoint may still be readable.
        raise BrokenCheckpoint(f"it cannot be read ({error})") from None


def _verify(path: Path) -> Checkpoint:
    manifest = _read_manifest(path)
    files = manifest["files"]
    weights = MODEL_FILES if MODEL_WEIGHTS in files else ADAPTER_FILES
    others = {rng_file(rank) for rank in range(1, manifest["fingerprint"].get(GPUS, 1))}
    required = REQUIRED | weights | others
    if missing := sorted(required - files.keys()):
        raise BrokenCheckpoint(f"its manifest does not list {missing[0]}")
    if foreign := sorted(files.keys() - required - OPTIONAL):
        raise BrokenCheckpoint(f"its manifest lists {foreign[0]}, which the trainer does not write")
    found = {entry.name for entry in path.iterdir()} - {MANIFEST}
    if unknown := sorted(found - files.keys()):
        raise BrokenCheckpoint(f"it contains {unknown[0]}, which its manifest does not list")
    if missing := sorted(files.keys() - found):
        raise BrokenCheckpoint(f"{missing[0]} is missing")
    for name, expected in files.items():
        _verify_file(path / name, expected)
    # The manifest proves that nothing changed since it was written, but not who wrote it.
    for name in files:
        if name.endswith((".pt", ".pth")):
            _refuse_code(path / name)
    return Checkpoint(
        path=path,
        step=manifest["step"],
        fingerprint=manifest["fingerprint"],
        state=_read_object(path / STATE),
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    if path.is_symlink() or not path.is_dir() or (path / MANIFEST).is_symlink():
        raise BrokenCheckpoint("it is not a plain folder")
    manifest = _read_object(path / MANIFEST)
    digest = manifest.pop("sha256", None)
    if digest != sha256_json(manifest):
        raise BrokenCheckpoint(f"{MANIFEST} does not match its own digest")
    if manifest.get("schema") != SCHEMA:
        raise BrokenCheckpoint(f"{MANIFEST} has schema {manifest.get('schema')}, not {SCHEMA}")
    if path.name != f"checkpoint-{manifest['step']}":
        raise BrokenCheckpoint(f"{MANIFEST} belongs to step {manifest['step']}")
    return manifest


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrokenCheckpoint(f"{path.name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenCheckpoint(f"{path.name} cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise BrokenCheckpoint(f"{path.name} contains no JSON object")
    return value


def _verify_file(path: Path, expected: dict[str, Any]) -> None:
    # A link could point anywhere, and to something else after the check.
    if path.is_symlink() or not path.is_file():
        raise BrokenCheckpoint(f"{path.name} is not a plain file")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise BrokenCheckpoint(f"{path.name} has {size} bytes, not {expected['bytes']}")
    if sha256_file(path) != expected["sha256"]:
        raise BrokenCheckpoint(f"{path.name} does not match its SHA-256")


def _refuse_code(path: Path) -> None:
    """Refuse a pickle that names anything but tensors and numpy's RNG arrays; none of it is run."""
    import torch
    from transformers.trainer_pt_utils import safe_globals

    try:
        with safe_globals():
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:
        # torch raises many kinds of errors for a malformed archive.
        kind = type(error).__name__
        raise BrokenCheckpoint(f"{path.name} was not written by torch.save ({kind})") from None
    if unsafe:
        raise BrokenCheckpoint(f"{path.name} would run {unsafe[0]}")
