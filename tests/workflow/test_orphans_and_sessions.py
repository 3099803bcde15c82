"""A trainer that outlives its Snakemake, and a session that ends for all jobs of a call."""

import os
import signal
import subprocess
import time

import pytest

from loragrid.runtime.delegation.client import FORK_SERVER
from loragrid.study.study_file import load_study
from tests.fixtures.workplace import Workplace

pytestmark = pytest.mark.usefixtures("warm")


@pytest.mark.long
def test_a_run_that_an_orphan_finishes_is_not_trained_again(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake assumes that the record is half written and deletes it before the job runs again."""
    monkeypatch.delenv(FORK_SERVER)  # the orphan is forked from an interpreter of that Snakemake's own
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
