"""A run whose machine is wiped goes on from its backup, to the same bytes. Kills: tests/tools/test_certify_backup.py."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from loragrid.backup.copier import Copier
from loragrid.backup.copies import FILES
from loragrid.backup.places import Place, PlaceError, open_place
from loragrid.backup.results import copy_result
from loragrid.errors import Paused, UserError
from loragrid.runtime.session import SessionClock
from loragrid.training.run_backup import RunBackup
from tests.fixtures import checkpoint_toys
from tests.fixtures.run_faults import assert_equal, stop_at
from tests.fixtures.train_toys import Toy, make_toy


@pytest.fixture
def backed_up(toy_llama: Path, tmp_path: Path) -> Toy:
    """The toy run with copies in memory and with weights kept along the way."""
    return make_toy(tmp_path / "toy", toy_llama, backup=f"memory://{tmp_path}", scoring__at=[0.25, 1.0])


def stop(toy: Toy, out: Path, *, step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Paused):
            toy.train(out)


def copies(toy: Toy) -> list[str]:
    sizes = open_place(toy.study.backup).sizes(f"toy/train/{toy.cell.run}")
    return sorted(path.rpartition("/")[2] for path in sizes if f"/{FILES}/" not in path)


def test_a_wiped_machine_goes_on_and_takes_up_the_finished_run(
    toy: Toy, reference: Path, backed_up: Toy, tmp_path: Path, capfd: Any
) -> None:
    """Its history, losses and weights kept along the way come back too; the record names every session."""
    assert backed_up.cell.run == toy.cell.run  # a place is no property of the result
    out = tmp_path / "run"
    stop(backed_up, out, step=7)
    assert copies(backed_up) == ["checkpoint-5.json", "checkpoint-7.json"]
    shutil.rmtree(out)
    record = backed_up.train(out)
    assert "taken from the backup: checkpoint-7" in capfd.readouterr().err
    assert [(part.start_step, part.end_step) for part in record.sessions] == [(0, 7), (7, 12)]
    assert record.kept_at == (0.25,) and (out / "along/0.25/adapter").is_dir()
    shutil.rmtree(out / "along")
    assert_equal(out, reference)
    assert len(copies(backed_up)) == 1 and copies(backed_up)[0].startswith("finished-")

    shutil.rmtree(out)
    again, said = backed_up.train(out), capfd.readouterr().err
    assert again == record and "taken from the backup: the finished run" in said and "only its record" in said
    assert (out / "along/0.25/adapter").is_dir() and not (out / "checkpoints").exists()


def test_a_finished_copy_of_other_data_is_trained_again(backed_up: Toy, tmp_path: Path) -> None:
    from tests.fixtures.train_toys import write_data

    backed_up.train(tmp_path / "run")
    other = Toy(study=backed_up.study, cell=backed_up.cell, data=write_data(tmp_path / "data", train_rows=29))
    record = other.train(tmp_path / "elsewhere")
    assert record.train_rows == 29 and [part.start_step for part in record.sessions] == [0]


def test_a_copy_of_another_run_is_refused_and_its_place_is_named(
    backed_up: Toy, tmp_path: Path, monkeypatch: Any
) -> None:
    from loragrid.runtime import provenance

    stop(backed_up, tmp_path / "run", step=5)
    now = provenance.versions()
    monkeypatch.setattr(provenance, "versions", lambda: now | {"peft": "0.0.1"})
    where = f"and its copies \\(memory://{tmp_path}, folder toy/train/{backed_up.cell.run}\\) to train from the start"
    with pytest.raises(UserError, match=rf'its peft version was .* and is now "0.0.1".*{where}'):
        backed_up.train(tmp_path / "elsewhere")


def test_a_place_that_fails_costs_one_line_and_no_step(
    reference: Path, toy_llama: Path, tmp_path: Path, capfd: Any, monkeypatch: Any
) -> None:
    """Neither unreadable at the start, nor full at the first save, nor at the last."""
    toy = make_toy(tmp_path / "toy", toy_llama, backup=f"memory://{tmp_path}")
    write, sizes = Place.write, Place.sizes

    def fails(*_: Any) -> None:
        raise PlaceError("OSError: no space left")

    def fails_first(self: Place, files: dict) -> None:
        if "checkpoint-10" not in list(files)[-1]:
            fails()
        write(self, files)

    monkeypatch.setattr(Place, "sizes", fails)
    monkeypatch.setattr(Place, "write", fails_first)
    out = tmp_path / "run"
    record = toy.train(out)
    said = capfd.readouterr().err
    assert record.status == "finished"
    assert_equal(out, reference)
    place = f"memory://{tmp_path}"
    assert f"backup: {place} cannot be read (OSError: no space left); what is here is resumed" in said
    line = (
        f"backup: checkpoint-5 was not copied to {place} (OSError: no space left); the next checkpoint is tried again"
    )
    assert said.count(line) == 1 and "Traceback" not in said
    assert f"backup: not copied to {place} (OSError: no space left); the next call of snakemake tries again" in said
    monkeypatch.setattr(Place, "sizes", sizes)
    assert copies(toy) == ["checkpoint-10.json"]


def test_a_broken_copy_is_passed_over_for_an_older_one(backed_up: Toy, tmp_path: Path, capfd: Any) -> None:
    """It is not kept in the place of the ones that follow, either."""
    out, place = tmp_path / "run", open_place(backed_up.study.backup)
    stop(backed_up, out, step=7)
    folder = f"toy/train/{backed_up.cell.run}"
    place.write({f"{folder}/checkpoint-7.json": place.read(f"{folder}/checkpoint-7.json")[:-9]})
    shutil.rmtree(out)
    stop(backed_up, out, step=6)
    said = capfd.readouterr().err
    assert "the copy of checkpoint-7 is broken (its manifest is not whole)" in said
    assert "taken from the backup: checkpoint-5" in said
    assert copies(backed_up) == ["checkpoint-5.json", "checkpoint-6.json"]


def test_a_checkpoint_stays_until_it_is_copied(backed_up: Toy, tmp_path: Path, monkeypatch: Any) -> None:
    """A slow place gets every byte of it, though newer checkpoints push it out; the newest one is copied next."""
    go, writes, write = threading.Event(), [], Place.write

    def slow(self: Place, files: dict) -> None:
        go.wait()
        write(self, files)
        writes.append(list(files)[-1].rpartition("/")[2])

    monkeypatch.setattr(Place, "write", slow)
    for name in ("history.jsonl", "losses.csv"):
        (tmp_path / name).write_text(name)
    clock = SessionClock(None)
    backup = RunBackup(backed_up.study, run=backed_up.cell.run, out=tmp_path, clock=clock)
    folder = tmp_path / "checkpoints"
    store = checkpoint_toys.store(folder)
    store.backup = backup
    with backup:
        for step in (1, 2, 3, 4):
            store.save(step=step, state={}, write=checkpoint_toys.write_checkpoint)
        assert {path.name for path in folder.iterdir()} == {"checkpoint-1", "checkpoint-3", "checkpoint-4"}
        go.set()
    assert writes == ["checkpoint-1.json", "checkpoint-4.json"]
    store.save(step=5, state={}, write=checkpoint_toys.write_checkpoint)
    assert {path.name for path in folder.iterdir()} == {"checkpoint-4", "checkpoint-5"}


def test_a_place_that_hangs_is_waited_for_once_and_keeps_its_checkpoint(
    backed_up: Toy, tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    """The finished run is not copied beside a copy that still runs, which would remove it at its end."""
    go, write, waits, wait = threading.Event(), Place.write, [], Copier.wait

    def slow(self: Place, files: dict) -> None:
        go.wait()
        write(self, files)

    monkeypatch.setattr(Place, "write", slow)
    monkeypatch.setattr(Copier, "wait", lambda self, seconds: (waits.append(seconds), wait(self, 0.0))[1])
    for name in ("history.jsonl", "losses.csv", "record.json"):
        (tmp_path / name).write_text(name)
    store = checkpoint_toys.store(tmp_path / "checkpoints")
    with RunBackup(backed_up.study, run=backed_up.cell.run, out=tmp_path, clock=SessionClock(None)) as backup:
        store.backup = backup
        store.save(step=1, state={}, write=checkpoint_toys.write_checkpoint)
        backup.copy_finished()
    assert waits == [600.0, 0.0] and "the last checkpoint was not copied" in capfd.readouterr().err
    go.set()
    assert wait(backup._copier, 60.0) and copies(backed_up) == ["checkpoint-1.json"]


def test_a_drive_that_comes_and_goes_costs_a_line_for_each_copy(toy_llama: Path, tmp_path: Path, capfd: Any) -> None:
    """Not mounted when the session begins and at the first save, mounted at the second."""
    toy = make_toy(tmp_path / "toy", toy_llama, backup=f"folder:{tmp_path}/drive/copies")
    for name in ("history.jsonl", "losses.csv"):
        (tmp_path / name).write_text(name)
    store = checkpoint_toys.store(tmp_path / "checkpoints")
    with RunBackup(toy.study, run=toy.cell.run, out=tmp_path, clock=SessionClock(None)) as backup:
        store.backup = backup
        backup.restore()
        store.save(step=1, state={}, write=checkpoint_toys.write_checkpoint)
    assert copy_result(toy.study, "data", toy.cell.data, toy.data) is False
    said = capfd.readouterr().err
    assert said.count("drive is no folder") == 3 and "checkpoint-1 was not copied" in said
    (tmp_path / "drive").mkdir()
    with backup:
        store.save(step=2, state={}, write=checkpoint_toys.write_checkpoint)
    assert copies(toy) == ["checkpoint-2.json"]
    assert copy_result(toy.study, "data", toy.cell.data, toy.data) is True and capfd.readouterr().err == ""


def test_a_session_leaves_time_for_the_last_copy() -> None:
    import time

    clock = SessionClock(time.monotonic() + 60)
    clock.record_duration(step=1, save=1)
    assert not clock.too_late()
    clock.record_duration(copy=50)
    assert clock.too_late()
