"""The stages in a resident worker: a second run, killed and resumed, and its scores equal those of processes of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import score
from loragrid.paths import SCRIPTS
from loragrid.records.record import RunRecord, read_record
from loragrid.runtime.delegation.client import WORKERS
from loragrid.runtime.delegation.worker_pool import KINDS
from loragrid.scoring.subjects import Subject
from tests.fixtures.delegated_jobs import is_alive, wait_until
from tests.fixtures.run_faults import assert_equal
from tests.fixtures.score_toys import contents, make_study, metrics
from tests.fixtures.train_toys import BASE_CASE, HELDOUT_ROWS, TRAINING, Toy, write_data

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfd: no workers here")

# The real stage, which stops for a moment after update 6 of the run in a folder whose name says so.
STAGE = f"""
import os, runpy, sys, time
from pathlib import Path
from loragrid.errors import run_main
from loragrid.runtime.delegation.client import delegate_job
if __name__ == "__main__":
    delegate_job()
    Path(sys.argv[-1], "..", "processes").resolve().open("a").write(f"{{os.getpid()}}\\n")
    stage = runpy.run_path(str(Path({str(SCRIPTS)!r}, Path(sys.argv[0]).name)), run_name="stage")
    if "slow" in sys.argv[-1]:
        from loragrid.training.progress import Progress
        must_stop = Progress.must_stop
        def and_wait(self, step):
            if step == 6 and not os.path.exists(sys.argv[-1] + ".seen"):
                open(sys.argv[-1] + ".seen", "w").close()
                time.sleep(60)
            return must_stop(self, step)
        Progress.must_stop = and_wait
    run_main(stage["main"])
"""


@pytest.fixture
def tasks_toy(tmp_path: Path, toy_llama: Path) -> Toy:
    """The run of `reference`, in a study that also has small tasks."""
    sections = {"base_case": BASE_CASE, "training": TRAINING, "grid": {}, "heldout": {"rows": HELDOUT_ROWS}}
    study = make_study(tmp_path, toy_llama, **sections)
    return Toy(study=study, cell=study.cells[0], data=write_data(tmp_path / "data"))


@pytest.fixture
def stages(tmp_path: Path, tasks_toy: Toy) -> Iterator[Path]:
    """The folder of the stages and of the pool of their workers."""
    folder = tmp_path / "stages"
    (folder / "place").mkdir(parents=True)
    for name in ("train", "score"):
        (folder / f"{name}.py").write_text(STAGE)
    owner = subprocess.Popen(["sleep", "600"])
    (folder / "place" / "owner").write_text(str(owner.pid))
    names = {tasks_toy.cell.run: 0, tasks_toy.cell.base: 0}
    kinds = {"kinds": [["plain", "plain", "b", False]], "names": {"train": names, "score": names}}
    (folder / "place" / KINDS).write_text(json.dumps(kinds))
    yield folder
    owner.kill()
    owner.wait()


def start(stages: Path, stage: str, toy: Toy, out: Path, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, stages / f"{stage}.py", "--study", toy.study.path, *arguments, "--data", toy.data]
    environment = os.environ | {WORKERS: str(stages / "place")}
    return subprocess.Popen([*map(str, command), "--out", str(out)], env=environment, stderr=subprocess.PIPE, text=True)


def finish(job: subprocess.Popen) -> str:
    _, said = job.communicate()
    assert job.returncode == 0, said
    return said


def processes(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "processes").read_text().split()]


@pytest.mark.slow
def test_runs_and_scores_of_one_worker_equal_those_of_their_own_processes(
    tasks_toy: Toy, reference: Path, stages: Path, tmp_path: Path
) -> None:
    toy = tasks_toy
    job = start(stages, "train", toy, tmp_path / "slow", "--run", toy.cell.run)
    wait_until((tmp_path / "slow.seen").exists)
    job.kill()
    job.communicate()
    first = set(processes(tmp_path))
    wait_until(lambda: not any(is_alive(process) for process in first))
    assert len(first) == 1

    # The next worker finishes what the killed one left, among other jobs.
    finish(start(stages, "score", toy, tmp_path / "base", "--subject", toy.cell.base))
    trained = ("--subject", toy.cell.run, "--trained", tmp_path / "second")
    finish(start(stages, "train", toy, tmp_path / "second", "--run", toy.cell.run))
    finish(start(stages, "train", toy, tmp_path / "slow", "--run", toy.cell.run))
    said = finish(start(stages, "score", toy, tmp_path / "run", *trained))
    assert len(set(processes(tmp_path)) - first) == 1 and "loaded again" not in said
    assert_equal(tmp_path / "second", reference)
    assert_equal(tmp_path / "slow", reference)
    sessions = read_record(tmp_path / "slow" / "record.json", RunRecord).sessions
    assert [session.ended for session in sessions] == ["killed", "finished"] and sessions[1].start_step == 5

    subjects = {"base": Subject(toy.cell.base, None, toy.data, tmp_path / "base-alone")}
    subjects["run"] = Subject(toy.cell.run, tmp_path / "second", toy.data, tmp_path / "run-alone")
    score.score_subjects(study=toy.study, subjects=list(subjects.values()))
    for name, subject in subjects.items():
        assert contents(tmp_path / name) == contents(subject.out) and metrics(tmp_path / name) == metrics(subject.out)
