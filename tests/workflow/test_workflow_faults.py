"""Faults of the whole workflow: signals to Snakemake, its death, a wiped machine, two at once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loragrid.paths import ROOT
from loragrid.study.study_file import load_study
from tests.fixtures.workplace import Workplace

pytestmark = pytest.mark.usefixtures("warm")


@pytest.mark.long
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
    assert "another snakemake works in this folder" in refused and "`snakemake --unlock`" in refused
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

    # The machine is wiped: only the drive is left. SIGTERM to Snakemake alone, which tells its job as Ctrl-C does.
    work.move(tmp_path / "elsewhere")
    snakemake = work.start()
    work.wait_for_more(2)
    os.kill(snakemake.pid, signal.SIGTERM)
    assert "(SIGINT), run the same command to go on" in work.end(snakemake)
    (work.folder / "slow").unlink()
    work.start().communicate(timeout=300)
    record = json.loads((work.run / "record.json").read_text())
    ended = [session["ended"] for session in record["sessions"]]
    assert ended == ["SIGINT", "SIGTERM", "SIGTERM", "SIGINT", "finished"]
    assert_undisturbed(work, tmp_path / "undisturbed")


def assert_undisturbed(work: Workplace, out: Path) -> None:
    """The adapter equals that of an uninterrupted run bit for bit."""
    from train import train_run

    study = load_study(str(work.study))
    (cell,) = study.cells
    train_run(study=study, cell=cell, data_folder=work.run.parents[1] / "data" / cell.data, out=out)
    name = "adapter/adapter_model.safetensors"
    assert (work.run / name).read_bytes() == (out / name).read_bytes()


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
