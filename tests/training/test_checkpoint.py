"""The store of checkpoints: complete or absent, newest first, and never resumed by another run."""

import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Failed, UserError
from loragrid.training.checkpoint_files import ADAPTER_FILES, MANIFEST, REQUIRED, STATE
from loragrid.training.checkpoints import CheckpointStore
from tests.fixtures.checkpoint_toys import (
    FINGERPRINT,
    flip_a_bit,
    newest,
    store,
    truncate,
    write_checkpoint,
)

TOUCHES = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "shutil.rmtree",
    "tempfile.mkstemp",
}


def test_newest_is_found_with_its_state(saved: Path) -> None:
    found = store(saved).newest_good(print)
    assert (found.step, found.state, found.fingerprint) == (10, {"at": 10}, FINGERPRINT)
    assert {entry.name for entry in found.path.iterdir()} == REQUIRED | ADAPTER_FILES | {MANIFEST}


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "none") == (None, [])


def test_all_broken_means_from_the_start(saved: Path) -> None:
    for step in (5, 10):
        truncate(saved / f"checkpoint-{step}" / "optimizer.pt")
    step, lines = newest(saved)
    assert step is None and len(lines) == 2


def test_two_broken_ones_of_a_step_are_both_kept(saved: Path) -> None:
    for _ in range(2):
        store(saved).save(step=15, state={}, write=write_checkpoint)
        flip_a_bit(saved / "checkpoint-15" / STATE)
        assert newest(saved)[0] == 10
    assert {path.name for path in saved.glob("broken-*")} == {
        "broken-checkpoint-15",
        "broken-checkpoint-15-1",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("settings.learning_rate", 0.2),
        ("data", "other"),
        ("torch version", "2"),
        ("settings.seed", 1),
        ("code", "new"),
    ],
)
def test_other_fingerprint_is_refused_by_name(saved: Path, field: str, value: Any) -> None:
    """One line has the field, both values and the fix; the checkpoint stays."""
    with pytest.raises(UserError) as error:
        newest(saved, **{field: value})
    text = str(error.value)
    assert field in text and json.dumps(value) in text and json.dumps(FINGERPRINT.get(field)) in text
    assert "delete" in text and (saved / "checkpoint-10").is_dir()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_keeps_the_newest(tmp_path: Path, keep: int) -> None:
    for step in (1, 2, 9, 10):
        store(tmp_path, keep=keep).save(step=step, state={}, write=write_checkpoint)
    steps = sorted(int(path.name.removeprefix("checkpoint-")) for path in tmp_path.iterdir())
    assert steps == [1, 2, 9, 10][-keep:]


@pytest.mark.parametrize("after", range(5))
def test_error_in_the_middle_of_a_save_leaves_the_older_ones(saved: Path, after: int) -> None:
    """What was written by then is removed, and the error is raised."""

    def breaks(folder: Path) -> None:
        write_checkpoint(folder)
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


def test_remains_of_a_killed_save_are_removed(saved: Path) -> None:
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
        guarded.save(step=15, state={}, write=write_checkpoint)
    assert {path.name for path in saved.iterdir()} == {"checkpoint-5", "checkpoint-10"}


@pytest.mark.parametrize("moment", range(1, 31))
def test_kill_at_any_moment_of_a_save(saved: Path, moment: int) -> None:
    """SIGKILL before each call of a save to the file system (mkdir, open, rename, remove, chmod …)."""
    child = os.fork()
    if child == 0:
        events = iter(range(1, 10_000))

        def kill_at_moment(event: str, arguments: tuple) -> None:
            inside = any(isinstance(argument, str | Path) and str(saved) in str(argument) for argument in arguments)
            if inside and event in TOUCHES and next(events) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill_at_moment)
        store(saved, keep=1).save(step=15, state={"at": 15}, write=write_checkpoint)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or moment > 15, "fewer moments than expected: is the hook still hit?"
    step, lines = newest(saved)
    assert lines == [] and step == (15 if (saved / "checkpoint-15").exists() else 10)
    assert not list(saved.glob(".saving-*"))
    store(saved, keep=1).save(step=20, state={}, write=write_checkpoint)
    assert {path.name for path in saved.iterdir()} == {"checkpoint-20"}
