"""Folders that are published whole or not at all."""

import os
import signal
import sys
from pathlib import Path

import pytest

from loragrid.runtime.atomic_files import atomic_folder

TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def publish(final: Path, text: str) -> None:
    """Publish a folder with a file and a subfolder, both of which hold `text`."""
    with atomic_folder(final) as folder:
        (folder / "a.txt").write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "b.txt").write_text(text)


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_folder_appears_whole_and_alone(tmp_path: Path) -> None:
    publish(tmp_path / "deep" / "out", "new")
    assert content(tmp_path) == {"deep/out/a.txt": "new", "deep/out/sub/b.txt": "new"}


def test_nothing_is_visible_before_the_block_ends(tmp_path: Path) -> None:
    publish(tmp_path / "out", "old")
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("new")
        assert content(tmp_path / "out") == {"a.txt": "old", "sub/b.txt": "old"}
    assert content(tmp_path) == {"out/a.txt": "new"}


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("error", [OSError("broken"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there(tmp_path: Path, existing: bool, error: BaseException) -> None:
    if existing:
        publish(tmp_path / "out", "old")
    before = content(tmp_path)
    with pytest.raises(type(error)), atomic_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("half")
        raise error
    assert content(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if existing else [])


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    for name in ("out.partial", "out.partial.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half.txt").write_text("half")
    (tmp_path / "out").mkdir()
    publish(tmp_path / "out", "new")
    assert content(tmp_path) == {"out/a.txt": "new", "out/sub/b.txt": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_on_error_sees_the_files_and_may_raise_a_clearer_error(tmp_path: Path) -> None:
    seen: list[str] = []

    def explain(error: BaseException) -> None:
        seen.extend(content(tmp_path))
        raise ValueError("clearer") from error

    with (
        pytest.raises(ValueError, match="clearer"),
        atomic_folder(tmp_path / "out", temporary=tmp_path / "t", on_error=explain) as folder,
    ):
        (folder / "a.txt").write_text("half")
        raise OSError("unclear")
    assert seen == ["t/a.txt"] and not list(tmp_path.iterdir())


def test_every_file_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def noted_rename(old: Path, new: Path) -> None:
        events.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    publish(tmp_path / "out", "new")
    assert set(events[:4]) == {"a.txt", "sub", "b.txt", "out.partial"}
    assert events[4:] == ["rename", tmp_path.name]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    publish(tmp_path / "out", "old")
    rename, calls = os.rename, iter(range(1, 10))

    def broken(old: Path, new: Path) -> None:
        if next(calls) == failing:
            raise OSError("the drive is gone")
        rename(old, new)

    monkeypatch.setattr(os, "rename", broken)
    with pytest.raises(OSError, match="drive is gone"):
        publish(tmp_path / "out", "new")
    assert content(tmp_path) == {"out/a.txt": "old", "out/sub/b.txt": "old"}


@pytest.mark.parametrize("moment", range(1, 26))
def test_kill_at_any_moment(tmp_path: Path, moment: int) -> None:
    """SIGKILL before each file system call: the folder is old or new, never a mixture, and the next call cleans up."""
    publish(tmp_path / "out", "old")
    child = os.fork()
    if child == 0:
        events = iter(range(1, 10_000))

        def kill_at_moment(event: str, arguments: tuple) -> None:
            inside = any(isinstance(given, str | Path) and str(tmp_path) in str(given) for given in arguments)
            if inside and event in TOUCHES and next(events) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill_at_moment)
        publish(tmp_path / "out", "new")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or moment > 14, "fewer moments than expected: is the hook still hit?"
    whole = [{"a.txt": text, "sub/b.txt": text} for text in ("old", "new")]
    # Between the two renames the old folder is under another name, from which the next call restores it.
    assert content(tmp_path / "out") in whole or content(tmp_path / "out.partial.replaced") == whole[0]
    with pytest.raises(OSError, match="broken"), atomic_folder(tmp_path / "out"):
        raise OSError("broken")
    assert content(tmp_path / "out") in whole
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
