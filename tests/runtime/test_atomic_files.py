import errno
import json
import os
import stat
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType

import pytest

from loragrid.errors import UserError, one_line
from loragrid.runtime.atomic_files import read_json, sha256_json, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", "old")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_drive_that_syncs_no_folder_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool
) -> None:
    """Mounted drives such as Colab's may lack the call, which is ignored; a real error is not."""
    fsync = os.fsync

    def files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    with pytest.raises(OSError) if fails else nullcontext():
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"é": [1, None]})
    assert read_json(tmp_path / "deep" / "a.json") == {"é": [1, None]}


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json is missing"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"half":')
    with pytest.raises(UserError, match=r"a\.json cannot be read as JSON"):
        read_json(tmp_path / "a.json")


def test_equal_settings_have_equal_digests() -> None:
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json(json.loads('{"b": [2], "a": 1}'))
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
    assert sha256_json({"a": MappingProxyType({"b": 1})}) == sha256_json({"a": {"b": 1}})
    with pytest.raises(TypeError):
        sha256_json({"a": object()})


def test_untrusted_text_cannot_forge_a_second_line() -> None:
    assert "\n" not in one_line("row 3\nerror: all is well\x1b[31m")
    assert "\x1b" not in one_line("row 3\nerror: all is well\x1b[31m")
