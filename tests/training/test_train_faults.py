"""What can go wrong with a run: each is survived with the bytes of the undisturbed run, or told in a line."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loragrid.errors import Failed, Paused, UserError
from loragrid.paths import SCRIPTS
from loragrid.records.failures import out_of_memory
from loragrid.records.outcomes import collect
from loragrid.records.record import RunRecord, read_record
from loragrid.runtime.session import SessionClock
from loragrid.study.study_file import load_study
from tests.fixtures.train_toys import Toy, make_toy, rows_of, write_study


@pytest.fixture(scope="module")
def toy(toy_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"), toy_llama)


@pytest.fixture(scope="module")
def reference(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "run"
    toy.train(out)
    return out


def assert_equal(out: Path, reference: Path) -> None:
    """Adapter bytes and loss rows; seconds are never equal."""
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (out / "adapter" / name).read_bytes() == (reference / "adapter" / name).read_bytes()
    rows, expected = ([{**row, "seconds": ""} for row in rows_of(folder)] for folder in (out, reference))
    assert rows == expected


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, reason: str = "SIGTERM") -> None:
    """Ask for a stop when that update has been made, as a signal would."""
    from loragrid.training.progress import Progress

    updated = Progress.record_update

    def and_ask(self: Progress, **what: Any) -> None:
        updated(self, **what)
        if self.totals.step == step:
            self.stop.request(reason)

    monkeypatch.setattr(Progress, "record_update", and_ask)


def lose(monkeypatch: pytest.MonkeyPatch, step: int, value: Any) -> None:
    """From that update on, the training loss is multiplied by `value`, or `value` is raised."""
    from loragrid.training.backends.trl import import_trainer

    trainer_class = import_trainer()
    compute_loss = trainer_class.compute_loss

    def broken(self: Any, *arguments: Any, **named: Any) -> Any:
        loss = compute_loss(self, *arguments, **named)
        if not self.model.training or self.state.global_step + 1 < step:
            return loss
        if isinstance(value, BaseException):
            raise value
        return loss * value

    monkeypatch.setattr(trainer_class, "compute_loss", broken)


# --- 3: signals; 12: the last step; session limit


@pytest.mark.parametrize("step", [1, 4, 5, 11, 12])
def test_asked_to_stop_it_pauses_and_goes_on(
    toy: Toy, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """At steps with and without an evaluation due, with a save due, and at the very last."""
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Paused, match=f"paused at step {step} of 12 .SIGTERM., run the same command to go on"):
            toy.train(tmp_path / "run")
    assert not (tmp_path / "run" / "record.json").exists() and not (tmp_path / "run" / "adapter").exists()
    assert (tmp_path / "run" / "checkpoints" / f"checkpoint-{step}").is_dir()
    record = toy.train(tmp_path / "run")
    assert [(s.start_step, s.end_step, s.ended) for s in record.sessions] == [
        (0, step, "SIGTERM"),
        (step, 12, "finished"),
    ]
    assert record.train_seconds == pytest.approx(sum(session.seconds for session in record.sessions))
    assert_equal(tmp_path / "run", reference)


def test_asked_while_the_base_is_loading(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loragrid.training.backends.trl import TrlBackend

    load = TrlBackend.load

    def and_terminate(self: TrlBackend, *arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return load(self, *arguments, **named)

    monkeypatch.setattr(TrlBackend, "load", and_terminate)
    with pytest.raises(Paused, match=r"step 0 of 12 \(SIGTERM\)"):
        toy.train(tmp_path / "run")


def test_asked_in_the_middle_of_an_evaluation(
    toy: Toy, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measurement is dropped, a checkpoint is saved, and the next session makes up for it."""
    from loragrid.training.trainer_hooks import TrainerHooks

    evaluate = TrainerHooks.evaluate

    def and_ask(self: TrainerHooks, **named: Any) -> Any:
        if self.progress.totals.step in (0, 8):
            self.progress.stop.request("SIGINT")
        return evaluate(self, **named)

    def go_on(self: TrainerHooks, **named: Any) -> Any:
        return and_ask(self, **named) if self.progress.totals.step else evaluate(self, **named)

    # Before the first update; after the eighth; and as the session after that begins by making up for it.
    for step, patched, rows in ((0, and_ask, []), (8, go_on, ["0", "4"]), (8, go_on, ["0", "4"])):
        with monkeypatch.context() as patch:
            patch.setattr(TrainerHooks, "evaluate", patched)
            with pytest.raises(Paused, match=rf"step {step} of 12 \(SIGINT\)"):
                toy.train(tmp_path / "run")
        assert [row["step"] for row in rows_of(tmp_path / "run") if row["kind"] == "heldout"] == rows
    toy.train(tmp_path / "run")
    assert_equal(tmp_path / "run", reference)


def test_session_limit_pauses_in_time_and_any_number_of_sessions_finish(
    toy: Toy, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little is left after loading: a job that began within the session makes at least one update."""
    with monkeypatch.context() as patch:
        patch.setattr(SessionClock, "left", lambda self: 9.0 if self.elapsed() < 0.1 else 0.0)
        for step in (1, 2, 3):
            with pytest.raises(Paused, match=rf"step {step} of 12 \(session_minutes\)"):
                toy.train(tmp_path / "run")
    record = toy.train(tmp_path / "run", session_ends=time.monotonic() + 600)
    assert [s.ended for s in record.sessions] == ["paused: session_minutes"] * 3 + ["finished"]
    assert_equal(tmp_path / "run", reference)


def test_a_job_that_begins_too_late_loads_nothing(toy: Toy, reference: Path, tmp_path: Path) -> None:
    """Its own sessions, or else the runs beside it, have told how long loading and an update take; nothing is left behind."""
    shutil.copytree(reference, tmp_path / "beside")
    ends = [json.loads(line) for line in (reference / "history.jsonl").read_text().splitlines()][1::2]
    loading, step = ends[0]["loading_seconds"], ends[0]["step_seconds"]
    assert loading > 0 and step > 0
    clock = SessionClock(time.monotonic() + loading + step)
    with pytest.raises(Paused, match=r"paused before it began .* run the same command to go on"):
        toy.train(tmp_path / "run", session_ends=time.monotonic() + loading + step)
    assert clock.left() > 0.5 * (loading + step) and not (tmp_path / "run").exists()
    with pytest.raises(Paused, match="paused before it began"):
        toy.train(tmp_path / "alone" / "run", session_ends=time.monotonic() - 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_command(toy_llama: Path, tmp_path: Path, number: int) -> None:
    """Fault 3, with the real command: exit status 75, one line that says how to go on, no final file."""
    toy = make_toy(tmp_path, toy_llama, training__budget={"steps": 100_000})
    command = [sys.executable, str(SCRIPTS / "train.py"), "--study", str(toy.study.path), "--run", toy.cell.run]
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*command, "--data", str(toy.data), "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (out / "losses.csv").exists() or len(rows_of(out)) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    last = errors.strip().splitlines()[-1]
    assert "paused at step" in last and "run the same command to go on" in last and "Traceback" not in errors
    assert (out / "checkpoints").is_dir() and not (out / "record.json").exists() and not (out / "adapter").exists()


# --- 5: divergence


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_divergence_is_a_result(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    lose(monkeypatch, 7, value)
    record = toy.train(tmp_path / "run")
    assert (record.status, record.steps, record.adapter_sha256) == ("diverged", 7, None)
    # The losses that its file holds are from before it diverged: no final ones.
    assert record.final_train_loss is record.final_heldout_loss is None and record.first_heldout_loss is not None
    assert "step 7" in record.reason and record.sessions[-1].ended == "diverged"
    last = rows_of(tmp_path / "run")[-1]
    assert (last["step"], float(last["loss"])) == ("7", pytest.approx(value, nan_ok=True))
    assert not (tmp_path / "run" / "adapter").exists() and not (tmp_path / "run" / "checkpoints").exists()
    assert read_record(tmp_path / "run" / "record.json", RunRecord) == record


def test_base_that_is_no_number_diverges_before_the_first_update(toy_llama: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    model = shutil.copytree(toy_llama, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], math.nan)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    record = make_toy(tmp_path / "toy", model).train(tmp_path / "run")
    assert (record.status, record.steps) == ("diverged", 0) and "held-out" in record.reason


# --- 6: memory


def _cuda_error() -> BaseException:
    import torch

    return torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 14.56 GiB of which "
        "812.00 MiB is free. Process 1 has 13.76 GiB memory in use."
    )


def _host_error() -> BaseException:
    import torch

    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("an exbibyte was allocated")


@pytest.mark.parametrize(
    ("make", "where", "needed", "available"),
    [(_cuda_error, "GPU", 2560.0, 812.0), (_host_error, "host", 2.0**40, None), (MemoryError, "host", None, None)],
)
def test_out_of_memory_is_told_with_figures(
    toy: Toy,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Any,
    where: str,
    needed: Any,
    available: Any,
) -> None:
    with monkeypatch.context() as patch:
        lose(patch, 7, make())
        with pytest.raises(Failed, match=f"out of {where} memory"):
            toy.train(tmp_path / "run")
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert (failure["reason"], failure["where"], failure["needed_mib"]) == ("out_of_memory", where, needed)
    assert failure["available_mib"] == available if available else failure["available_mib"] > 0
    assert failure["step"] == 6 and failure["run"] == toy.cell.run and "\n" not in failure["message"]
    assert not (tmp_path / "run" / "record.json").exists()
    # On a larger machine the same command goes on, with the batch as it was.
    toy.train(tmp_path / "run")
    assert not (tmp_path / "run" / "failure.json").exists()
    assert_equal(tmp_path / "run", reference)


def test_a_bug_keeps_its_traceback_and_leaves_a_reason(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch, 7, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        toy.train(tmp_path / "run")
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert (failure["reason"], failure["error"], failure["message"]) == ("error", "ZeroDivisionError", "a bug")


def test_other_cells_go_on_after_one_ran_out_of_memory(
    toy: Toy, toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the tables the one is failed, with the reason, and the other trained."""
    path = write_study(tmp_path, toy_llama)
    settings = yaml.safe_load(path.read_text())
    settings["grid"]["learning_rate"] = [1.0e-2, 1.0e-3]
    path.write_text(yaml.safe_dump(settings))
    study = load_study(str(path))
    first, second = study.cells
    folder = tmp_path / "results" / "train"
    with monkeypatch.context() as patch:
        lose(patch, 7, _cuda_error())
        with pytest.raises(Failed, match="out of GPU memory"):
            Toy(study=study, cell=first, data=toy.data).train(folder / first.run)
    Toy(study=study, cell=second, data=toy.data).train(folder / second.run)
    outcomes = {outcome.subject: outcome for outcome in collect(study, tmp_path / "results")}
    assert (outcomes[first.run].status, outcomes[second.run].status) == ("failed", "trained")
    assert "2560.0 MiB more needed" in outcomes[first.run].reason


def test_numpy_s_words_for_memory_are_understood() -> None:
    import numpy as np

    with pytest.raises(MemoryError) as error:
        np.empty(2**60, dtype=np.uint8)
    assert out_of_memory(error.value)["needed_mib"] == 2.0**40
    assert out_of_memory(MemoryError("Unable to allocate 1.50 TiB for an array"))["needed_mib"] == 1.5 * 2**20


def test_a_failure_keeps_its_own_reason(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(monkeypatch, 7, Failed("the card fell off"))
    with pytest.raises(Failed, match="fell off"):
        toy.train(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "failure.json").read_text())["reason"] == "failed"


# --- 7, 16: disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("only root may mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_keeps_the_older_checkpoint(toy: Toy, reference: Path, small_disk: Path) -> None:
    out = small_disk / "run"
    with pytest.raises(Failed, match=f"the disk of {out / 'checkpoints'} is full"):
        fill_before_the_second_save(toy, out, small_disk)
    names = {path.name for path in (out / "checkpoints").iterdir()}
    assert names == {"checkpoint-5"}
    (small_disk / "ballast").unlink()
    record = toy.train(out)
    assert [s.start_step for s in record.sessions] == [0, 5]
    assert_equal(out, reference)


def fill_before_the_second_save(toy: Toy, out: Path, disk: Path) -> None:
    from loragrid.training.checkpoints import CheckpointStore

    save = CheckpointStore.save

    def and_fill(self: CheckpointStore, *, step: int, **what: Any) -> Path:
        if step == 10:
            state = os.statvfs(disk)
            (disk / "ballast").write_bytes(b"0" * (state.f_bavail * state.f_frsize - 40_000))
        return save(self, step=step, **what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointStore, "save", and_fill)
        toy.train(out)


def test_read_only_folder_is_a_line(toy: Toy, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match="cannot be written"):
        toy.train(small_disk / "run")


def test_folder_that_is_a_file_is_a_line(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="cannot be written"):
            toy.train(out)


# --- 8, 9, 10, 11, 13, 20: what lies in the checkpoints (every file and damage: test_checkpoint.py)


@pytest.fixture(scope="module")
def stopped(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped at step 11, with checkpoints of steps 10 and 11."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 11)
        with pytest.raises(Paused):
            toy.train(out)
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"checkpoint-10", "checkpoint-11"}
    return out


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damage_costs_steps_and_never_bits(
    toy: Toy, reference: Path, stopped: Path, tmp_path: Path, capfd: Any, name: str, damage: str
) -> None:
    out = shutil.copytree(stopped, tmp_path / "run")
    path = out / "checkpoints" / "checkpoint-11" / name
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-1])
    record = toy.train(out)
    assert record.sessions[-1].start_step == 10 and "broken-checkpoint-11" in capfd.readouterr().err
    assert_equal(out, reference)


def test_checkpoint_of_other_data_is_refused(toy: Toy, stopped: Path, tmp_path: Path) -> None:
    from tests.fixtures.train_toys import write_data

    out = shutil.copytree(stopped, tmp_path / "run")
    other = Toy(study=toy.study, cell=toy.cell, data=write_data(tmp_path / "data", train_rows=29))
    with pytest.raises(UserError, match="its data was"):
        other.train(out)
    assert (out / "checkpoints" / "checkpoint-11").is_dir()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"base_case__rank": 8}, "settings.rank"),
        ({"base_case__learning_rate": 2.0e-2}, "settings.learning_rate"),
        ({"base_case__seed": 8}, "settings.seed"),
        ({"base_case__batch": [2, 4]}, "settings.batch.accumulation"),
        ({"training__dropout": 0.2}, "settings.training.dropout"),
        ({"training__compute_dtype": "bf16"}, "compute_dtype"),
        ({"training__budget": {"steps": 13}}, "planned_steps"),
        ({"training__threads": 2}, "settings.training.threads"),
    ],
)
def test_checkpoint_of_another_run_is_refused_by_field(
    toy_llama: Path, stopped: Path, tmp_path: Path, changes: dict, field: str
) -> None:
    """Faults 11 and 13: a new setting is a new run id and a new folder; put under an old checkpoint, it is refused."""
    other = make_toy(tmp_path / "toy", toy_llama, **changes)
    out = shutil.copytree(stopped, tmp_path / "run")
    with pytest.raises(UserError, match=f"its {field} was"):
        other.train(out)


def test_other_library_version_is_refused(
    toy: Toy, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loragrid.runtime import provenance

    now = provenance.versions()
    monkeypatch.setattr(provenance, "versions", lambda: now | {"peft": "0.0.1"})
    with pytest.raises(UserError, match=r'its peft version was .* and is now "0.0.1"'):
        toy.train(shutil.copytree(stopped, tmp_path / "run"))


def test_settings_that_decide_nothing_may_change(
    reference: Path, toy_llama: Path, stopped: Path, tmp_path: Path
) -> None:
    toy = make_toy(tmp_path / "toy", toy_llama, training__save_steps=2, training__keep_checkpoints=1)
    out = shutil.copytree(stopped, tmp_path / "run")
    assert toy.train(out).sessions[-1].start_step == 11
    assert_equal(out, reference)


# --- 4, 19: two trainers of one run; wiped machine


def test_orphan_keeps_the_run_until_it_dies(toy: Toy, reference: Path, tmp_path: Path) -> None:
    """Fault 4: a trainer whose snakemake was killed goes on; a second one says who it is, and takes over after it."""
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
    assert [(s.start_step, s.end_step, s.ended) for s in record.sessions] == [(0, 6, "killed"), (5, 12, "finished")]
    assert_equal(out, reference)


def test_goes_on_in_another_place_after_the_machine_was_wiped(
    toy: Toy, reference: Path, stopped: Path, tmp_path: Path
) -> None:
    """The run's folder is all that is needed: copied elsewhere, it goes on there."""
    out = shutil.copytree(stopped, tmp_path / "elsewhere" / "run")
    assert toy.train(out).sessions[-1].start_step == 11
    assert_equal(out, reference)


def test_trainer_that_lost_the_run_writes_no_final_file(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It slept through its last updates: the other's checkpoints, history and losses stay as they are."""
    from loragrid.training.progress import Progress

    out, updated = tmp_path / "run", Progress.record_update

    def and_sleep(self: Progress, **what: Any) -> None:
        updated(self, **what)
        if self.totals.step == self.planned_steps:
            other = {"host": "elsewhere", "pid": 7, "token": "t", "since": "noon"}
            (out / "trainer.lock").write_text(json.dumps(other))

    monkeypatch.setattr(Progress, "record_update", and_sleep)
    with pytest.raises(UserError, match=r"taken over .*process 7 on elsewhere since noon"):
        toy.train(out)
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"checkpoint-5", "checkpoint-10"}
    names = {path.name for path in out.iterdir()}
    assert names == {"checkpoints", "losses.csv", "history.jsonl", "trainer.lock"}
    assert [json.loads(line)["event"] for line in (out / "history.jsonl").read_text().splitlines()] == ["start"]


def test_record_that_was_written_while_the_lock_was_awaited_is_the_end(
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


# --- 4: an orphan that came to the end; Snakemake deletes its record before the job runs again


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
def test_finished_run_that_is_not_what_it_was_is_trained_again(
    toy: Toy, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """An edit of the training code runs it again, as Snakemake wants it; so does any damage."""
    out = without_record(reference, tmp_path / "run")
    file = {"adapter": "adapter/adapter_model.safetensors", "losses": "losses.csv", "copy": "finished.json"}.get(
        changed
    )
    if file:
        (out / file).write_bytes((out / file).read_bytes()[:-2])
    else:
        monkeypatch.setattr("loragrid.training.fingerprint.code_digest", lambda stage: "edited")
    record = toy.train(out)
    assert len((out / "history.jsonl").read_text().splitlines()) == 4 and len(record.sessions) == 1
    assert_equal(out, reference)


# --- 14: state of an 8-bit optimizer


def test_eight_bit_optimizer_resumes_bitwise(toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 128, since bitsandbytes keeps tensors under 4096 values in 32 bit."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: requirements-gpu.txt")
    toy = make_toy(tmp_path, toy_llama, training__optimizer="adamw_8bit", base_case__rank=128)
    toy.train(tmp_path / "reference")
    for step in (3, 8):
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            with pytest.raises(Paused):
                toy.train(tmp_path / "run")
    import torch

    state = torch.load(tmp_path / "run" / "checkpoints" / "checkpoint-8" / "optimizer.pt", weights_only=True)["state"]
    assert state[0]["__bnb_optimizer_quant_state__"]["state1"].dtype == torch.uint8
    toy.train(tmp_path / "run")
    assert_equal(tmp_path / "run", tmp_path / "reference")
