"""Faults of the whole workflow: signals to Snakemake, its death, a wiped machine, two at once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loragrid.paths import ROOT
from loragrid.runtime.fork_client import FOLDER_VARIABLE
from loragrid.study.study_file import load_study
from tests.fixtures.workplace import Workplace

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture
def work(tmp_path: Path, toy_llama: Path) -> Iterator[Workplace]:
    made = Workplace(tmp_path / "here", toy_llama, tmp_path / "drive")
    made.drive.mkdir()
    yield made
    for process in made.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_one_run_through_signals_a_kill_a_second_snakemake_and_a_wiped_machine(work: Workplace, tmp_path: Path) -> None:
    """Kills, signals and a wiped machine, one after another on one run, whose adapter equals that of an undisturbed run."""
    # Ctrl-C in the terminal: the whole group gets it.
    snakemake = work.start()
    work.wait_for_more(2)
    os.killpg(snakemake.pid, signal.SIGINT)
    assert "run the same command to go on" in work.end(snakemake)

    # A batch system's SIGTERM to the whole group. Before that, a second snakemake on the same study: refused, nothing touched.
    snakemake = work.start()
    work.wait_for_more(2)
    refused = work.end(work.start())
    assert "LockException" in refused and "--unlock" in refused
    work.prepare_other_study()
    os.killpg(snakemake.pid, signal.SIGTERM)
    assert "(SIGTERM), run the same command to go on" in work.end(snakemake)

    # SIGKILL to Snakemake alone: its trainer continues as an orphan. A new trainer of the same run is refused.
    snakemake = work.start()
    work.wait_for_more(2)
    os.kill(snakemake.pid, signal.SIGKILL)
    snakemake.wait()  # what it said ends only with its trainer
    orphan = work.trainer()
    work.wait_for_more(2)
    assert subprocess.run(work.command("--unlock"), cwd=work.folder, capture_output=True).returncode == 0
    assert f"already being trained (process {orphan} on" in work.end(work.start())
    os.kill(orphan, signal.SIGTERM)
    work.wait_for(lambda: not (work.run / "trainer.lock").read_text())

    # The machine is wiped: only the drive is left. SIGTERM to Snakemake alone stops nothing: the job it has is let finish.
    work.move(tmp_path / "elsewhere")
    snakemake = work.start()
    work.wait_for_more(2)
    os.kill(snakemake.pid, signal.SIGTERM)
    (work.folder / "slow").unlink()
    snakemake.communicate(timeout=300)
    record = json.loads((work.run / "record.json").read_text())
    ended = [session["ended"] for session in record["sessions"]]
    assert ended == ["SIGINT", "SIGTERM", "SIGTERM", "finished"]
    assert_undisturbed(work, tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_run_that_an_orphan_finishes_is_not_trained_again(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake assumes that the record is half written and deletes it before the job runs again."""
    monkeypatch.delenv(FOLDER_VARIABLE)  # the orphan is forked from an interpreter of that Snakemake's own
    snakemake = work.start()
    work.wait_for_more(2)
    os.kill(snakemake.pid, signal.SIGKILL)
    snakemake.wait()
    (work.folder / "slow").unlink()
    work.wait_for(lambda: (work.run / "record.json").exists() and not (work.run / "trainer.lock").read_text())
    history, record = (work.run / "history.jsonl").read_text(), (work.run / "record.json").read_bytes()
    adapter = (work.run / "adapter/adapter_model.safetensors").stat().st_mtime_ns

    target = str((work.run / "record.json").relative_to(work.drive))
    assert subprocess.run(work.command("--unlock"), cwd=work.folder, capture_output=True).returncode == 0
    done = subprocess.run(work.command(target), cwd=work.folder, capture_output=True, text=True)
    assert done.returncode == 0 and "its record is written again" in done.stderr
    assert (work.run / "history.jsonl").read_text() == history and (work.run / "record.json").read_bytes() == record
    assert (work.run / "adapter/adapter_model.safetensors").stat().st_mtime_ns == adapter


@pytest.mark.slow
def test_a_session_ends_for_all_jobs_of_a_call(work: Workplace) -> None:
    """Two cells in one session: the first pauses at a checkpoint, and the second does not begin."""
    settings = work.settings
    settings["grid"] = {"axes": {"learning_rate": [1.0e-2, 1.0e-3]}}
    work.write(settings)
    first, second = (work.drive / "results/toy/train" / cell.run for cell in load_study(str(work.study)).cells)
    command = [*work.command("--until", "train"), "session_minutes=30"]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    snakemake = subprocess.Popen(command, cwd=work.folder, start_new_session=True, **said)
    work.started.append(snakemake)
    work.wait_for(lambda: (first / "losses.csv").exists() and ",train," in (first / "losses.csv").read_text())
    (work.folder / "over").touch()
    words, _ = snakemake.communicate(timeout=300)
    assert snakemake.returncode == 1 and f"run {first.name} paused at step" in words, words
    assert f"run {second.name} paused before it began" in words
    assert list(first.glob("checkpoints/checkpoint-*")) and not list(second.glob("*"))
    ends = (work.folder / "ends").read_text().split()
    assert len(ends) == 2 and len(set(ends)) == 1 and float(ends[0]) > time.monotonic()


def assert_undisturbed(work: Workplace, out: Path) -> None:
    """The adapter equals that of an uninterrupted run bit for bit."""
    from train import train_run

    study = load_study(str(work.study))
    (cell,) = study.cells
    train_run(study=study, cell=cell, data_folder=work.run.parents[1] / "data" / cell.data, out=out)
    name = "adapter/adapter_model.safetensors"
    assert (work.run / name).read_bytes() == (out / name).read_bytes()


# --- 16: read-only results folder


@pytest.mark.parametrize("inside", ["", "results", "reports", ".snakemake"])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, inside: str) -> None:
    """The working directory, or only one of the folders in it that are written to."""
    place = tmp_path / "disk"
    folder = place / inside
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("only root may mount a read-only file system")
    try:
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--directory", str(place)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"error: {folder} cannot be written. Fix: choose another folder with --directory" in done.stderr


def test_a_session_of_no_length_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "--directory", str(tmp_path)]
    done = subprocess.run([*command, "--config", "session_minutes=abc"], cwd=ROOT, capture_output=True, text=True)
    lines = [
        line for line in done.stderr.splitlines() if not line.startswith(("Using workflow specific", "Config file"))
    ]
    assert done.returncode == 2 and len(lines) == 1
    assert lines[0].startswith("error: session_minutes: not a number of minutes above 0 (abc)")
