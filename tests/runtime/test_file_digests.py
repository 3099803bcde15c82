"""The kept digest of a large file: read again whenever the file may have changed."""

import os
from pathlib import Path

import pytest

from loragrid.runtime import file_digests
from loragrid.runtime.atomic_files import sha256_file
from loragrid.runtime.delegation import residency
from loragrid.runtime.file_digests import kept_sha256, session_sha256
from loragrid.study import identity


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read as a whole."""
    found: list[Path] = []

    def read(path: Path) -> str:
        found.append(path)
        return sha256_file(path)

    monkeypatch.setattr(file_digests, "sha256_file", read)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def write(file: Path, text: str) -> Path:
    """A file that was written an hour ago."""
    file.write_text(text)
    hour_ago = file.stat().st_mtime - 3600
    os.utime(file, (hour_ago, hour_ago))
    return file


def test_an_unchanged_file_is_read_once(tmp_path: Path, reads: list[Path]) -> None:
    file = write(tmp_path / "rows.jsonl", "one")
    assert kept_sha256(file) == kept_sha256(file) == sha256_file(file)
    assert reads == [file]


def test_another_content_of_equal_size_and_time_is_read(tmp_path: Path, reads: list[Path]) -> None:
    file = write(tmp_path / "rows.jsonl", "one")
    before, times = kept_sha256(file), file.stat()
    file.write_text("two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert kept_sha256(file) == sha256_file(file) != before


def test_a_resident_worker_reads_a_file_once_until_it_changes(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_digests, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(file_digests, "_of_session", {})
    file = write(tmp_path / "rows.parquet", "one")
    assert session_sha256(file) == session_sha256(file) == sha256_file(file) and reads == [file] * 2
    monkeypatch.setattr(residency, "_resident", True)
    before, times = [session_sha256(file) for _ in range(3)], file.stat()
    assert set(before) == {sha256_file(file)} and reads == [file] * 3
    file.write_text("two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert session_sha256(file) == sha256_file(file) != before[0] and reads == [file] * 4


def test_a_file_that_is_being_written_is_not_kept(tmp_path: Path, reads: list[Path]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("one")
    assert kept_sha256(file) == kept_sha256(file)
    assert len(reads) == 2


def test_a_damaged_or_unwritable_cache_costs_time_only(tmp_path: Path, reads: list[Path]) -> None:
    file = write(tmp_path / "rows.jsonl", "one")
    kept_sha256(file)
    (kept,) = (tmp_path / "cache" / "loragrid" / "digests").iterdir()
    kept.write_text("[")
    assert kept_sha256(file) == sha256_file(file)
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("a file where the folder should be")
    assert kept_sha256(file) == sha256_file(file)


def test_every_byte_of_large_data_counts(tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed byte between the blocks that the sampled digest of a large model file reads."""
    monkeypatch.setattr(identity, "WHOLE_FILE_BYTES", 10)
    file, data = tmp_path / "rows.jsonl", {"chat": {"filters": {}, "rows": None, "source": {"path": ""}}}
    file.write_bytes(b"a" * 8_000_000)
    data["chat"]["source"]["path"] = str(file)
    first = identity.data_identity(data, "chat")
    with file.open("r+b") as content:
        content.seek(200_000)
        content.write(b"b")
    identity._source_content.cache_clear()
    assert identity.data_identity(data, "chat") != first
