"""Copies at a place are whole or not there, whatever is killed, lost or damaged."""

import json
import os
from pathlib import Path

import pytest

from loragrid.backup.copies import FILES, RESTORING, BrokenCopy, CopyStore
from loragrid.backup.places import Place, PlaceError, open_place
from loragrid.runtime.atomic_files import sha256_json

PLACES = ["folder:{}/copies", "memory://{}/copies"]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return open_place(request.param.format(tmp_path))


@pytest.fixture
def store(place: Place) -> CopyStore:
    return CopyStore(place, "study/train/run")


def files(folder: Path, *, step: int) -> dict[str, Path | bytes]:
    """The files of a run with a checkpoint of that step."""
    inner = folder / "checkpoints" / f"checkpoint-{step}"
    inner.mkdir(parents=True, exist_ok=True)
    (inner / "weights").write_bytes(bytes(range(step)))
    (inner / "config").write_text("the same in all")
    return {
        "history.jsonl": f"{step} lines".encode(),
        f"checkpoints/checkpoint-{step}/weights": inner / "weights",
        f"checkpoints/checkpoint-{step}/config": inner / "config",
    }


def save(store: CopyStore, folder: Path, step: int) -> None:
    store.write(f"checkpoint-{step}", files(folder, step=step))


def restored(store: CopyStore, into: Path, step: int) -> dict[str, bytes]:
    store.restore(store.read(f"checkpoint-{step}"), into, last=f"checkpoints/checkpoint-{step}")
    return {str(path.relative_to(into)): path.read_bytes() for path in into.rglob("*") if path.is_file()}


def test_what_is_copied_comes_back_with_its_times(store: CopyStore, tmp_path: Path) -> None:
    os.utime(files(tmp_path / "here", step=5)["checkpoints/checkpoint-5/config"], ns=(1, 10**18))
    store.write("checkpoint-5", {"history.jsonl": b"x", "config": tmp_path / "here/checkpoints/checkpoint-5/config"})
    store.restore(store.read("checkpoint-5"), tmp_path / "there", last="config")
    assert (tmp_path / "there/config").read_text() == "the same in all"
    assert (tmp_path / "there/config").stat().st_mtime_ns == 10**18
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["config", "history.jsonl"]


def test_a_copy_takes_the_place_of_files_and_folders_and_leaves_others(store: CopyStore, tmp_path: Path) -> None:
    there = tmp_path / "there"
    files(there, step=3)
    (there / "history.jsonl").write_text("older and longer than the other")
    (there / "trainer.lock").write_text("held")
    save(store, tmp_path / "here", 5)
    found = restored(store, there, 5)
    assert found["history.jsonl"] == b"5 lines" and found["trainer.lock"] == b"held"
    assert "checkpoints/checkpoint-3/weights" in found and "checkpoints/checkpoint-5/weights" in found


def test_older_copies_go_and_shared_files_stay(store: CopyStore, tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(store, tmp_path / "here", step)
    store.keep_only(["checkpoint-10", "checkpoint-15"])
    assert store.names() == ["checkpoint-10", "checkpoint-15"]
    # Two histories, two weights and the file that both share.
    assert len(store.place.sizes(f"{store.folder}/{FILES}")) == 5
    for step in (10, 15):
        assert restored(store, tmp_path / f"there-{step}", step)["history.jsonl"] == f"{step} lines".encode()
    store.keep_only([])
    assert store.place.sizes(store.folder) == {}


def test_a_file_is_written_once_by_a_process_and_again_by_the_next(
    store: CopyStore, tmp_path: Path, monkeypatch
) -> None:
    written: list[str] = []
    write = Place.write
    monkeypatch.setattr(Place, "write", lambda self, files: (written.extend(files), write(self, files))[1])
    save(store, tmp_path, 5)
    assert written[-1] == "study/train/run/checkpoint-5.json" and len(written) == 4
    save(store, tmp_path, 10)
    assert len(written) == 4 + 3
    # A power cut may have left a file of the right size without its content.
    save(CopyStore(store.place, store.folder), tmp_path, 10)
    assert len(written) == 4 + 3 + 4


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_copy_that_is_interrupted_is_not_there(store: CopyStore, tmp_path: Path, monkeypatch, writes: int) -> None:
    """Killed after so many of its three new files; the one before stays whole, and the next one is."""
    save(store, tmp_path / "here", 5)
    write = Place.write

    def interrupted(self: Place, new: dict) -> None:
        write(self, dict(list(new.items())[:writes]))
        raise PlaceError("the connection is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Place, "write", interrupted)
        with pytest.raises(PlaceError):
            save(store, tmp_path / "here", 10)
    again = CopyStore(store.place, store.folder)
    assert again.names() == ["checkpoint-5"]
    restored(again, tmp_path / "there", 5)
    save(again, tmp_path / "here", 10)
    again.keep_only(["checkpoint-10"])
    assert restored(again, tmp_path / "later", 10)["checkpoints/checkpoint-10/weights"] == bytes(range(10))


def test_a_kill_while_a_shared_file_is_written_again_leaves_the_older_copy_whole(tmp_path: Path, monkeypatch) -> None:
    """The next process writes what it has not written itself, in the place of files that an older copy has too."""
    place = open_place(f"folder:{tmp_path}/copies")
    save(CopyStore(place, "study/train/run"), tmp_path / "here", 5)

    def half(source: str, target: str) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(place.file_system, "put_file", half)
    store = CopyStore(place, "study/train/run")
    with pytest.raises(KeyboardInterrupt):
        store.write("checkpoint-10", {"config": tmp_path / "here/checkpoints/checkpoint-5/config"})
    assert len(list((tmp_path / "copies").rglob("*.partial"))) == 1
    assert restored(store, tmp_path / "there", 5)["checkpoints/checkpoint-5/config"] == b"the same in all"
    store.keep_only(["checkpoint-5"])
    assert not list((tmp_path / "copies").rglob("*.partial"))


def test_half_a_manifest_is_none(store: CopyStore, tmp_path: Path) -> None:
    save(store, tmp_path, 5)
    path = f"{store.folder}/checkpoint-5.json"
    whole = store.place.read(path)
    for content in (b"", whole[: len(whole) // 2], whole.replace(b'"bytes": 5', b'"bytes": 6'), b"[]", b"1"):
        store.place.write({path: content})
        assert store.read("checkpoint-5") is None
    store.place.write({path: whole})
    assert store.read("checkpoint-5") is not None


@pytest.mark.parametrize("damage", [b"", b"other", b"the same in alm"])
def test_a_damaged_file_changes_nothing_here(store: CopyStore, tmp_path: Path, damage: bytes) -> None:
    save(store, tmp_path / "here", 5)
    copy = store.read("checkpoint-5")
    store.place.write({f"{store.folder}/{FILES}/{copy.files['checkpoints/checkpoint-5/config'].sha256}": damage})
    there = tmp_path / "there"
    files(there, step=3)
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    with pytest.raises(BrokenCopy, match="config does not match its SHA-256"):
        store.restore(copy, there, last="checkpoints/checkpoint-5")
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before
    assert not (there / RESTORING).exists()


def test_a_copy_that_has_lost_a_file_is_broken(store: CopyStore, tmp_path: Path) -> None:
    """A place that can be read has other copies, so this is not a failure of the place."""
    save(store, tmp_path / "here", 5)
    copy = store.read("checkpoint-5")
    store.place.remove([f"{store.folder}/{FILES}/{copy.files['history.jsonl'].sha256}"])
    with pytest.raises(BrokenCopy, match=r"history\.jsonl is gone"):
        store.restore(copy, tmp_path / "there", last="checkpoints/checkpoint-5")
    assert not list((tmp_path / "there").glob("*"))


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", ".restoring/x", "a\\..\\x"])
def test_a_manifest_names_no_file_outside_of_the_folder(store: CopyStore, path: str) -> None:
    manifest = {"schema": 1, "name": "checkpoint-5", "files": {path: {"bytes": 0, "sha256": "0" * 64, "mtime_ns": 0}}}
    text = json.dumps(manifest | {"sha256": sha256_json(manifest)})
    store.place.write({f"{store.folder}/checkpoint-5.json": text.encode()})
    assert store.read("checkpoint-5") is None
    manifest["files"] = {"x": {"bytes": 0, "sha256": "../" + "0" * 61, "mtime_ns": 0}}
    text = json.dumps(manifest | {"sha256": sha256_json(manifest)})
    store.place.write({f"{store.folder}/checkpoint-5.json": text.encode()})
    assert store.read("checkpoint-5") is None
