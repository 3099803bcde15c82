"""Two trainers of one run, and a trainer that outlives its Snakemake."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Paused, UserError
from loragrid.records.record import RunRecord, read_record
from tests.fixtures.run_faults import assert_equal
from tests.fixtures.train_toys import Toy


def test_orphan_holds_the_run_until_it_dies(toy: Toy, reference: Path, tmp_path: Path) -> None:
    """A trainer whose Snakemake was killed goes on; a second one names it, and resumes after its death."""
    out, ready = tmp_path / "run", tmp_path / "ready"
    child = os.fork()
    if child == 0:
        with pytest.MonkeyPatch.context() as patch:
            from loragrid.training.progress import Progress

            def wait(self: Progress, step: int) -> bool:
                if step == 6:
                    ready.touch()
                    time.sleep(600)
                return False

            patch.setattr(Progress, "must_stop", wait)
            toy.train(out)
        os._exit(0)
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(Paused, match=f"already being trained .process {child} on"):
        toy.train(out)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    record = toy.train(out)
    assert [(s.start_step, s.end_step, s.ended) for s in record.sessions] == [
        (0, 6, "killed"),
        (5, 12, "finished"),
    ]
    assert_equal(out, reference)


def test_trainer_that_lost_the_run_writes_no_final_file(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine slept: the other trainer's checkpoints, history and losses stay as they are."""
    from loragrid.training.progress import Progress

    out, record_update = tmp_path / "run", Progress.record_update

    def and_sleep(self: Progress, **update: Any) -> None:
        record_update(self, **update)
        if self.totals.step == self.planned_steps:
            other = {"host": "elsewhere", "pid": 7, "token": "t", "since": "noon"}
            (out / "trainer.lock").write_text(json.dumps(other))

    monkeypatch.setattr(Progress, "record_update", and_sleep)
    with pytest.raises(UserError, match=r"taken over .*process 7 on elsewhere since noon"):
        toy.train(out)
    assert {path.name for path in (out / "checkpoints").iterdir()} == {
        "checkpoint-5",
        "checkpoint-10",
    }
    names = {path.name for path in out.iterdir()}
    assert names == {"checkpoints", "losses.csv", "history.jsonl", "trainer.lock"}
    assert [json.loads(line)["event"] for line in (out / "history.jsonl").read_text().splitlines()] == ["start"]


def test_record_written_while_waiting_for_the_lock_ends_the_job(
    toy: Toy, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loragrid.runtime.run_lock import RunLock

    out, enter = tmp_path / "run", RunLock.__enter__

    def after_another(self: RunLock) -> RunLock:
        shutil.copytree(reference, out, dirs_exist_ok=True)
        return enter(self)

    monkeypatch.setattr(RunLock, "__enter__", after_another)
    record = toy.train(out)
    assert record == read_record(reference / "record.json", RunRecord)


def without_record(reference: Path, out: Path) -> Path:
    shutil.copytree(reference, out)
    (out / "record.json").unlink()
    return out


def test_finished_run_whose_record_was_deleted_is_not_trained_again(toy: Toy, reference: Path, tmp_path: Path) -> None:
    out = without_record(reference, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert toy.train(out) == read_record(reference / "record.json", RunRecord)
    assert (out / "record.json").read_bytes() == (reference / "record.json").read_bytes()
    after = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert after | {"record.json": b""} == before | {"record.json": b""}


@pytest.mark.parametrize("changed", ["code", "adapter", "losses", "copy"])
def test_finished_run_that_changed_is_trained_again(
    toy: Toy, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """An edit of the training code trains it again, as Snakemake expects; so does any damage."""
    out = without_record(reference, tmp_path / "run")
    file = {
        "adapter": "adapter/adapter_model.safetensors",
        "losses": "losses.csv",
        "copy": "finished.json",
    }.get(changed)
    if file:
        (out / file).write_bytes((out / file).read_bytes()[:-2])
    else:
        monkeypatch.setattr("loragrid.training.fingerprint.code_digest", lambda stage: "edited")
    record = toy.train(out)
    assert len((out / "history.jsonl").read_text().splitlines()) == 4 and len(record.sessions) == 1
    assert_equal(out, reference)
