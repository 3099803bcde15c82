"""A study on a Slurm cluster set up by the test: time limit, failure, Ctrl-C, and the adapters of an undisturbed run."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm.cluster import Cluster, why_not
from study.grid import expand
from study.study_file import load_study
from test_workflow import Checkout

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]
IMPATIENT = Path(__file__).parent / "slurm" / "impatient.py"
STEPS = 80
# The copied trainer obeys two files beside the study: `slow/RUN` (a second per update, so that a time limit or a signal finds
# it at work) and `broken/RUN` (it raises).
OBEY = """
def _obey() -> None:
    import sys, time
    from study.course import Course
    room, run = Path(__file__).parents[1], sys.argv[sys.argv.index("--run") + 1]
    must_stop = Course.must_stop
    def slowly(self, step):
        if (room / "slow" / run).exists():
            time.sleep(1.0)
        if (room / "broken" / run).exists():
            raise RuntimeError("broken on purpose")
        return must_stop(self, step)
    Course.must_stop = slowly


if __name__ == "__main__":
    _obey()
"""


class Submitted(Checkout):
    """A checkout whose snakemake submits to a cluster."""

    def __init__(self, folder: Path, model: Path, cluster: Cluster) -> None:
        super().__init__(folder, model)
        self.cluster = cluster
        self.process: subprocess.Popen | None = None
        settings = self.settings
        settings["grid"] |= {"learning_rate": [1.0e-2, 3.0e-3, 1.0e-3]}
        settings["training"] |= {"budget": {"steps": STEPS}, "save_steps": 20, "evaluate_every_steps": 40}
        settings["scoring"]["retention"] = []
        self.write(settings)
        self.runs = [cell.run for cell in expand(load_study(str(self.study)))]
        script = folder / "scripts" / "train.py"
        script.write_text(script.read_text().replace('\nif __name__ == "__main__":\n', OBEY))
        for name in ("slow", "broken"):
            (folder / name).mkdir()

    def submit(self, *arguments: str) -> subprocess.Popen:
        """Start snakemake with the shipped profile, TERM nearer to the limit; its words go to snakemake.txt."""
        early = [f"{rule}:slurm_extra='--signal=TERM@20'" for rule in ("train", "score")]
        command = [
            sys.executable,
            str(IMPATIENT),
            "--workflow-profile",
            "workflow/profiles/slurm",
            "--latency-wait",
            "5",
        ]
        command += ["--set-resources", *early, *arguments, "--config", f"study={self.study}"]
        environment = self.cluster.environment | {"OMP_NUM_THREADS": "1"}
        with (self.folder / "snakemake.txt").open("w") as said:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=said, stderr=said)
        return self.process

    @property
    def said(self) -> str:
        return (self.folder / "snakemake.txt").read_text()

    def result(self, run: str, name: str = "record.json", *, stage: str = "train") -> Path:
        return self.folder / "results/toy" / stage / run / name

    def sessions(self, run: str) -> list[tuple[int, int, str]]:
        record = json.loads(self.result(run).read_text())
        return [(session["start_step"], session["end_step"], session["ended"]) for session in record["sessions"]]

    def steps(self, run: str) -> int:
        """Loss rows of a run so far."""
        losses = self.result(run, "losses.csv")
        return losses.read_text().count("train") if losses.exists() else 0

    def job(self, run: str) -> int:
        """The newest job that trains a run."""
        return max(
            number
            for number, (_, comment) in self.cluster.jobs().items()
            if comment.endswith(f"train_wildcards_toy_{run}")
        )


def wait_until(happened: Callable[[], object], process: subprocess.Popen, seconds: float = 600) -> None:
    """Return when it has; fail when snakemake ends before."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory, toy_llama: Path) -> Iterator[Submitted]:
    folder = tmp_path_factory.mktemp("slurm")
    with Cluster(folder / "cluster") as cluster:
        made = Submitted(folder / "checkout", toy_llama, cluster)
        yield made
        if made.process and made.process.poll() is None:
            made.process.kill()
            made.process.wait()


def test_a_time_limit_and_a_failed_job(submitted: Submitted) -> None:
    """One run is cut at its time limit and submitted again, one fails every time, one is left alone: two of three are scored."""
    limited, good, broken = submitted.runs
    (submitted.folder / "slow" / limited).touch()
    (submitted.folder / "broken" / broken).touch()
    process = submitted.submit("--retries", "1")
    wait_until(lambda: submitted.steps(limited) > 2, process)
    job = submitted.job(limited)
    limit_minutes = submitted.cluster.seconds(job) // 60 + 1  # the next whole minute: Slurm counts in minutes
    submitted.cluster.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={limit_minutes}")
    history = submitted.result(limited, "history.jsonl")
    wait_until(lambda: '"SIGTERM"' in history.read_text(), process)
    (submitted.folder / "slow" / limited).unlink()
    assert process.wait(timeout=600) == 1, submitted.said

    assert submitted.sessions(good) == [(0, STEPS, "finished")]
    (start, cut, ended), rest = submitted.sessions(limited)
    assert (start, ended) == (0, "SIGTERM") and 0 < cut < STEPS
    assert rest == (cut, STEPS, "finished")
    log = submitted.folder / f".snakemake/slurm_logs/rule_train/toy_{limited}/{job}.log"
    assert f"run {limited} paused at step {cut} of {STEPS} (SIGTERM)" in log.read_text()
    assert not submitted.result(broken).exists()
    assert "broken on purpose" in submitted.result(broken, "failure.json").read_text()
    scored = [run for run in submitted.runs if submitted.result(run, "score.json", stage="score").exists()]
    assert scored == [limited, good]
    states = {number: state for number, (state, comment) in submitted.cluster.jobs().items() if "train" in comment}
    assert states.pop(job) in ("FAILED", "TIMEOUT")  # the latter where the limit came before its snakemake had ended
    assert sorted(states.values()) == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]


def test_ctrl_c_cancels_and_the_same_command_goes_on(submitted: Submitted, tmp_path: Path) -> None:
    """The run that failed, mended: cancelled at work, it goes on where it was; tables and page are made without a job."""
    interrupted = submitted.runs[2]
    (submitted.folder / "broken" / interrupted).unlink()
    (submitted.folder / "slow" / interrupted).touch()
    process = submitted.submit()
    wait_until(lambda: submitted.steps(interrupted) > 2, process)
    job = submitted.job(interrupted)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 1
    assert submitted.cluster.jobs()[job][0] in ("CANCELLED", "COMPLETING")
    history = submitted.result(interrupted, "history.jsonl")
    deadline = time.monotonic() + 60
    while '"SIGTERM"' not in history.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.2)

    (submitted.folder / "slow" / interrupted).unlink()
    assert submitted.submit().wait(timeout=600) == 0, submitted.said
    *_, (_, cut, ended), rest = submitted.sessions(interrupted)
    assert ended == "SIGTERM" and 0 < cut < STEPS and rest == (cut, STEPS, "finished")
    assert "<html" in (submitted.folder / "reports/toy/report.html").read_text()
    assert not [
        comment for _, comment in submitted.cluster.jobs().values() if "compare" in comment or "report" in comment
    ]


def test_adapters_are_those_of_an_undisturbed_run(submitted: Submitted, tmp_path: Path) -> None:
    """Bit by bit, whatever became of the jobs."""
    from train import train_run

    study = load_study(str(submitted.study))
    for cell in expand(study):
        train_run(
            study=study,
            cell=cell,
            data_folder=submitted.folder / "results/toy/data" / cell.data,
            out=tmp_path / cell.run,
        )
    files = tmp_path.glob("*/adapter/adapter_model.safetensors")
    assert submitted.adapters() == {file.parents[1].name: file.read_bytes() for file in files}
    assert len(submitted.adapters()) == 3
