"""Signals and session limits: a run pauses in time, and resumes to the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Paused
from loragrid.paths import SCRIPTS
from loragrid.runtime.session import SessionClock
from tests.fixtures.run_faults import assert_equal, stop_at
from tests.fixtures.train_toys import Toy, make_toy, rows_of


@pytest.mark.parametrize("step", [1, 4, 5, 11, 12])
def test_stopped_at_any_step_and_resumed_it_is_the_undisturbed_run(
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


def test_signal_while_the_base_is_loading(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loragrid.training.backends.trl import TrlBackend

    load = TrlBackend.load

    def and_terminate(self: TrlBackend, *arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return load(self, *arguments, **named)

    monkeypatch.setattr(TrlBackend, "load", and_terminate)
    with pytest.raises(Paused, match=r"step 0 of 12 \(SIGTERM\)"):
        toy.train(tmp_path / "run")


def test_signal_in_the_middle_of_an_evaluation(
    toy: Toy, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measurement is dropped, a checkpoint is saved, and the next session measures again."""
    from loragrid.training.trainer_hooks import TrainerHooks

    evaluate = TrainerHooks.evaluate

    def and_request(self: TrainerHooks, **named: Any) -> Any:
        if self.progress.totals.step in (0, 8):
            self.progress.stop.request("SIGINT")
        return evaluate(self, **named)

    def and_request_later(self: TrainerHooks, **named: Any) -> Any:
        chosen = and_request if self.progress.totals.step else evaluate
        return chosen(self, **named)

    # Before the first update, after the eighth, and when the next session repeats that measurement.
    sessions = [(0, and_request, []), *[(8, and_request_later, ["0", "4"])] * 2]
    for step, patched, rows in sessions:
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
    """A job that began within the session makes at least one update, however little time is left."""
    with monkeypatch.context() as patch:
        patch.setattr(SessionClock, "left", lambda self: 9.0 if self.elapsed() < 0.1 else 0.0)
        for step in (1, 2, 3):
            with pytest.raises(Paused, match=rf"step {step} of 12 \(session_minutes\)"):
                toy.train(tmp_path / "run")
    record = toy.train(tmp_path / "run", session_ends=time.monotonic() + 600)
    assert [s.ended for s in record.sessions] == ["paused: session_minutes"] * 3 + ["finished"]
    assert_equal(tmp_path / "run", reference)


def test_a_job_that_begins_too_late_loads_nothing(toy: Toy, reference: Path, tmp_path: Path) -> None:
    """The times of loading and an update come from its own sessions or those of other runs."""
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


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_signal_to_the_command(toy_llama: Path, tmp_path: Path, number: int) -> None:
    """The real command: exit status 75, one line that says how to resume, no final file."""
    toy = make_toy(tmp_path, toy_llama, base_case__budget={"steps": 100_000})
    command = [
        sys.executable,
        str(SCRIPTS / "train.py"),
        "--study",
        str(toy.study.path),
        "--run",
        toy.cell.run,
    ]
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
