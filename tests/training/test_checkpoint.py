"""Checkpoints: whole or not there, and nothing accepted that is not what was saved."""

import errno
import json
import os
import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Failed, UserError
from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.training import checkpoint_files
from loragrid.training.checkpoint_files import MANIFEST, REQUIRED, STATE, BrokenCheckpoint, verify
from loragrid.training.checkpoints import CheckpointStore

FINGERPRINT = {"run": "r", "settings.learning_rate": 0.1, "data": "abc", "torch version": "1"}
TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "tempfile.mkstemp"}
FILES = sorted(REQUIRED | {MANIFEST})


def write(folder: Path) -> None:
    """What a trainer writes: tensors and JSON."""
    import torch

    for name in REQUIRED - {STATE}:
        if name.endswith((".pt", ".pth")):
            torch.save({"value": torch.arange(8)}, folder / name)
        else:
            (folder / name).write_text(json.dumps({"name": name}))


def store(folder: Path, *, keep: int = 2, **changes: Any) -> CheckpointStore:
    return CheckpointStore(folder, fingerprint=FINGERPRINT | changes, keep=keep)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 5 and 10."""
    for step in (5, 10):
        store(tmp_path).save(step=step, state={"at": step}, write=write)
    return tmp_path


def newest(folder: Path, **changes: Any) -> tuple[int | None, list[str]]:
    lines: list[str] = []
    found = store(folder, **changes).newest_good(lines.append)
    return (found.step if found else None), lines


def test_newest_is_found_with_its_state(saved: Path) -> None:
    found = store(saved).newest_good(print)
    assert (found.step, found.state, found.fingerprint) == (10, {"at": 10}, FINGERPRINT)
    assert {entry.name for entry in found.path.iterdir()} == REQUIRED | {MANIFEST}


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "none") == (None, [])


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _replace_by_link(path: Path) -> None:
    target = path.with_name("..") / f"copy-of-{path.name}"
    target.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [_truncate, _flip_a_bit, _empty, os.unlink, _replace_by_link])
def test_damaged_file_sets_the_checkpoint_aside(saved: Path, name: str, damage: Any) -> None:
    """Faults 8, 9, 10: for every file of the newest checkpoint, the one before is used and a line says why."""
    damage(saved / "checkpoint-10" / name)
    step, lines = newest(saved)
    assert step == 5
    assert len(lines) == 1 and "checkpoint-10" in lines[0] and "broken-checkpoint-10" in lines[0]
    assert (saved / "broken-checkpoint-10").is_dir() and not (saved / "checkpoint-10").exists()


def test_all_broken_means_from_the_start(saved: Path) -> None:
    for step in (5, 10):
        _truncate(saved / f"checkpoint-{step}" / "optimizer.pt")
    step, lines = newest(saved)
    assert step is None and len(lines) == 2


def test_two_broken_ones_of_a_step_are_both_kept(saved: Path) -> None:
    for _ in range(2):
        store(saved).save(step=15, state={}, write=write)
        _flip_a_bit(saved / "checkpoint-15" / STATE)
        assert newest(saved)[0] == 10
    assert {path.name for path in saved.glob("broken-*")} == {"broken-checkpoint-15", "broken-checkpoint-15-1"}


def test_unknown_file_sets_the_checkpoint_aside(saved: Path) -> None:
    (saved / "checkpoint-10" / "extra.bin").write_bytes(b"x")
    assert newest(saved)[0] == 5


def test_file_that_no_trainer_writes_is_refused_even_if_the_manifest_lists_it(saved: Path) -> None:
    (saved / "checkpoint-10" / "training_args.bin").write_bytes(b"x")
    _reseal(saved / "checkpoint-10")
    step, lines = newest(saved)
    assert step == 5 and "training_args.bin" in lines[0]


def test_loss_scale_of_fp16_belongs_to_a_checkpoint(saved: Path) -> None:
    def with_scaler(folder: Path) -> None:
        write(folder)
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
    """Make the manifest agree with what lies there, as an attacker would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest.pop("sha256")
    files = [path for path in folder.iterdir() if path.name != MANIFEST]
    manifest["files"] = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in files}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": sha256_json(manifest)}))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("form", ["torch.save", "bare pickle"])
@pytest.mark.parametrize("sealed", [True, False])
def test_pickle_that_runs_code_is_never_unpickled(saved: Path, name: str, form: str, sealed: bool) -> None:
    """Fault 20, with a manifest that agrees and one that does not."""
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


@pytest.mark.parametrize(
    ("field", "value"),
    [("settings.learning_rate", 0.2), ("data", "other"), ("torch version", "2"), ("settings.seed", 1), ("code", "new")],
)
def test_other_fingerprint_is_refused_by_name(saved: Path, field: str, value: Any) -> None:
    """Fault 11: the field, both values and the mend, in a line; the checkpoint stays."""
    with pytest.raises(UserError) as error:
        newest(saved, **{field: value})
    text = str(error.value)
    assert field in text and json.dumps(value) in text and json.dumps(FINGERPRINT.get(field)) in text
    assert "delete" in text and (saved / "checkpoint-10").is_dir()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_keeps_the_newest(tmp_path: Path, keep: int) -> None:
    for step in (1, 2, 9, 10):
        store(tmp_path, keep=keep).save(step=step, state={}, write=write)
    steps = sorted(int(path.name.removeprefix("checkpoint-")) for path in tmp_path.iterdir())
    assert steps == [1, 2, 9, 10][-keep:]


@pytest.mark.parametrize("after", range(5))
def test_error_in_the_middle_of_a_save_leaves_the_older_ones(saved: Path, after: int) -> None:
    """Whatever was written by then is removed; the error goes on."""

    def breaks(folder: Path) -> None:
        write(folder)
        for path in sorted(folder.iterdir())[after:]:
            path.unlink()
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        store(saved).save(step=15, state={}, write=breaks)
    assert {path.name for path in saved.iterdir()} == {"checkpoint-5", "checkpoint-10"}
    assert newest(saved) == (10, [])


def test_full_disk_is_one_line_that_names_the_folder(saved: Path) -> None:
    def fills(folder: Path) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("a library's own words") from error

    with pytest.raises(Failed, match=str(saved)):
        store(saved).save(step=15, state={}, write=fills)
    assert newest(saved) == (10, [])


def test_what_a_kill_left_of_a_save_is_cleared(saved: Path) -> None:
    for name in (".saving-15", ".saving-deleted-checkpoint-1"):
        (saved / name).mkdir()
        (saved / name / "optimizer.pt").write_bytes(b"half")
    assert newest(saved) == (10, [])
    assert not list(saved.glob(".saving-*"))


def test_save_is_refused_before_anything_is_written(saved: Path) -> None:
    def refuse() -> None:
        raise UserError("lock lost")

    guarded = CheckpointStore(saved, fingerprint=FINGERPRINT, keep=1, before_save=refuse)
    with pytest.raises(UserError, match="lock lost"):
        guarded.save(step=15, state={}, write=write)
    assert {path.name for path in saved.iterdir()} == {"checkpoint-5", "checkpoint-10"}


@pytest.mark.parametrize("moment", range(1, 31))
def test_kill_at_any_moment_of_a_save(saved: Path, moment: int) -> None:
    """Fault 2: SIGKILL before each thing that a save does to the file system (mkdir, open, rename, remove, chmod …)."""
    child = os.fork()
    if child == 0:
        events = iter(range(1, 10_000))

        def kill_at_moment(event: str, arguments: tuple) -> None:
            inside = any(isinstance(argument, str | Path) and str(saved) in str(argument) for argument in arguments)
            if inside and event in TOUCHES and next(events) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill_at_moment)
        store(saved, keep=1).save(step=15, state={"at": 15}, write=write)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or moment > 15, "fewer moments than expected: is the hook still hit?"
    step, lines = newest(saved)
    assert lines == [] and step == (15 if (saved / "checkpoint-15").exists() else 10)
    assert not list(saved.glob(".saving-*"))
    store(saved, keep=1).save(step=20, state={}, write=write)
    assert {path.name for path in saved.iterdir()} == {"checkpoint-20"}
