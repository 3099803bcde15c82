"""What makes a checkpoint acceptable: damage to any file and code in pickles are found out."""

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.training import checkpoint_files
from loragrid.training.checkpoint_files import ADAPTER_FILES, MANIFEST, REQUIRED, BrokenCheckpoint, verify
from tests.fixtures.checkpoint_toys import (
    flip_a_bit,
    newest,
    store,
    truncate,
    write_checkpoint,
)

FILES = sorted(REQUIRED | ADAPTER_FILES | {MANIFEST})


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _replace_by_link(path: Path) -> None:
    target = path.with_name("..") / f"copy-of-{path.name}"
    target.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, _empty, os.unlink, _replace_by_link])
def test_damaged_file_sets_the_checkpoint_aside(saved: Path, name: str, damage: Any) -> None:
    """For every file of the newest checkpoint: the one before is used, and a line says why."""
    damage(saved / "checkpoint-10" / name)
    step, lines = newest(saved)
    assert step == 5
    assert len(lines) == 1 and "checkpoint-10" in lines[0] and "broken-checkpoint-10" in lines[0]
    assert (saved / "broken-checkpoint-10").is_dir() and not (saved / "checkpoint-10").exists()


def test_unknown_file_sets_the_checkpoint_aside(saved: Path) -> None:
    (saved / "checkpoint-10" / "extra.bin").write_bytes(b"x")
    assert newest(saved)[0] == 5


def test_file_that_no_trainer_writes_is_refused_even_if_listed(saved: Path) -> None:
    (saved / "checkpoint-10" / "training_args.bin").write_bytes(b"x")
    _reseal(saved / "checkpoint-10")
    step, lines = newest(saved)
    assert step == 5 and "training_args.bin" in lines[0]


def test_loss_scale_of_fp16_belongs_to_a_checkpoint(saved: Path) -> None:
    def with_scaler(folder: Path) -> None:
        write_checkpoint(folder)
        (folder / "scaler.pt").write_bytes((folder / "scheduler.pt").read_bytes())

    store(saved).save(step=15, state={}, write=with_scaler)
    assert newest(saved) == (15, [])


def test_file_that_cannot_be_read_sets_the_checkpoint_aside(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector must not block the run for good."""

    def bad_sector(path: Path) -> str:
        if path == saved / "checkpoint-10" / "optimizer.pt":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return sha256_file(path)

    monkeypatch.setattr(checkpoint_files, "sha256_file", bad_sector)
    step, lines = newest(saved)
    assert step == 5 and "Input/output error" in lines[0]


def test_checkpoint_renamed_to_another_step_is_broken(saved: Path) -> None:
    os.rename(saved / "checkpoint-10", saved / "checkpoint-99")
    assert newest(saved)[0] == 5


class _Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.trace),))


def _reseal(folder: Path) -> None:
    """Make the manifest agree with the files, as an attacker would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest.pop("sha256")
    files = [path for path in folder.iterdir() if path.name != MANIFEST]
    manifest["files"] = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in files}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": sha256_json(manifest)}))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("form", ["torch.save", "bare pickle"])
@pytest.mark.parametrize("sealed", [True, False])
def test_pickle_that_runs_code_is_never_unpickled(saved: Path, name: str, form: str, sealed: bool) -> None:
    """With a manifest that agrees and one that does not."""
    import torch

    trace, path = saved / "executed", saved / "checkpoint-10" / name
    if form == "torch.save":
        torch.save({"value": _Evil(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(_Evil(trace)))
    if sealed:
        _reseal(saved / "checkpoint-10")
    step, lines = newest(saved)
    assert step == 5 and name in lines[0]
    assert not trace.exists()


def test_malicious_file_beside_the_others_is_never_opened(saved: Path) -> None:
    trace = saved / "executed"
    (saved / "checkpoint-10" / "training_args.bin").write_bytes(pickle.dumps(_Evil(trace)))
    assert newest(saved)[0] == 5 and not trace.exists()


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"schema": 1}', "\xff", "null", "[" * 200_000])
def test_malformed_manifest_is_broken(saved: Path, manifest: str) -> None:
    (saved / "checkpoint-10" / MANIFEST).write_text(manifest)
    with pytest.raises(BrokenCheckpoint):
        verify(saved / "checkpoint-10")
