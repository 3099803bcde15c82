"""Copies in a repository of the hub, by a stand-in on loopback: private, whole commits, no token in any message."""

from pathlib import Path

import pytest

from loragrid.backup.copies import CopyStore
from loragrid.backup.places import Place, PlaceError, open_place
from tests.fixtures.hub_server import LARGE_BYTES, TOKEN, HubServer


@pytest.fixture
def place(hub: HubServer) -> Place:
    place = open_place("hub:me/copies")
    place.check()
    return place


def test_copies_in_a_private_repository_come_back(hub: HubServer, place: Place, tmp_path: Path) -> None:
    repository = hub.repositories["me/copies"]
    assert repository.private
    store = CopyStore(place, "study/train/run")
    assert store.names() == []
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(bytes(LARGE_BYTES * 2))
    small.write_text("small")
    for step in (5, 10, 15):
        commits = len(repository.commits)
        store.write(f"checkpoint-{step}", {"history.jsonl": f"{step}".encode(), "a/large": large, "a/small": small})
        # One commit, which is whole or absent.
        assert len(repository.commits) == commits + 1
        store.keep_only([f"checkpoint-{step}"])
    assert store.names() == ["checkpoint-15"]
    assert len([path for path in repository.files if path.startswith("study/")]) == 4
    store.restore(store.read("checkpoint-15"), tmp_path / "there", last="history.jsonl")
    assert (tmp_path / "there/a/large").read_bytes() == large.read_bytes()
    assert (tmp_path / "there/history.jsonl").read_text() == "15"


def test_a_second_machine_sees_what_the_first_one_copied(hub: HubServer, place: Place) -> None:
    there = CopyStore(open_place("hub:me/copies"), "study/train/run")
    assert there.names() == []
    CopyStore(place, "study/train/run").write("checkpoint-5", {"history.jsonl": b"5"})
    assert there.names() == ["checkpoint-5"] and there.read("checkpoint-5") is not None


def test_a_refused_token_is_one_line_without_the_token(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in even repeats what it was sent."""
    hub.refused.add("POST /api/repos/create")
    with pytest.raises(PlaceError, match="403") as caught:
        open_place("hub:me/copies").check()
    assert TOKEN not in str(caught.value) and "\n" not in str(caught.value)
    hub.refused.clear()
    open_place("hub:me/copies").check()
    hub.refused.add("/commit/")
    with pytest.raises(PlaceError, match="403"):
        CopyStore(open_place("hub:me/copies"), "study/train/run").write("checkpoint-5", {"history.jsonl": b"5"})
    assert not any(path.startswith("study/") for path in hub.repositories["me/copies"].files)
