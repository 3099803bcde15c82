import tempfile
from pathlib import Path

import pytest

from loragrid.runtime import local_folders
from loragrid.runtime.local_folders import is_remote, make_local_folder


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose folder `my drive` is Google's."""
    (tmp_path / "my drive" / "tmp").mkdir(parents=True)
    drive = str(tmp_path / "my drive").replace(" ", "\\040")
    table = tmp_path / "mounts"
    table.write_text(f"overlay / overlay rw 0 0\ndrive {drive} fuse.drive rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n")
    monkeypatch.setattr(local_folders, "MOUNTS", table)
    return tmp_path / "my drive" / "tmp"


def test_a_mounted_drive_is_not_a_local_disk(mounts: Path, tmp_path: Path) -> None:
    assert is_remote(mounts) and not is_remote(tmp_path) and not is_remote(Path("/dev/shm"))


def test_a_folder_is_local_whatever_tmpdir_says(mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(mounts))
    made = make_local_folder("loragrid-test-")
    assert made.is_dir() and not made.is_relative_to(mounts) and made.stat().st_mode & 0o077 == 0
    made.rmdir()


def test_without_a_table_of_mounts_nothing_is_remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_folders, "MOUNTS", tmp_path / "absent")
    assert not is_remote(tmp_path)
