"""The demo, shrunk, on a Slurm cluster of its own: time limit, failure, Ctrl-C, and the adapters of an undisturbed run."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from loragrid.paths import ROOT
from loragrid.planning.job_resources import resource_requests
from loragrid.study.study_file import load_study
from tests.fixtures.checkout import Checkout
from tests.slurm.cluster import Cluster, why_not

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]
IMPATIENT = Path(__file__).with_name("impatient.py")
STEPS = 120
# The copied trainer obeys two files beside the study: `slow/RUN` (seconds per update, so that a time limit or a signal finds
# it at work) and `broken/RUN` (it raises before it loads anything).
OBEY = """
def _obey() -> None:
    import sys, time
    from loragrid.training.progress import Progress
    room, run = Path(__file__).parents[1], sys.argv[sys.argv.index("--run") + 1]
    must_stop = Progress.must_stop
    def slowly(self, step):
        if (room / "slow" / run).exists():
            time.sleep(float((room / "slow" / run).read_text()))
        return must_stop(self, step)
    Progress.must_stop = slowly
    def fail(**_):
        raise RuntimeError("broken on purpose")
    if (room / "broken" / run).exists():
        globals()["prepare"] = fail


if __name__ == "__main__":
    _obey()
"""


def edited_profile(text: str) -> str:
    """The shipped profile with the four lines of docs/cluster.md in use, and the type of the train jobs' GPU."""
    for line in (
        "slurm_account: mine",
        "slurm_partition: gpu",
        "set-resources:",
        "  prepare_data:",
        "    slurm_partition: cpu    # 3",
        "  find_contamination:",
        "    slurm_partition: cpu    # 4",
        "  train:",
        "    gpu_model: a100",
    ):
        assert text.count(f"# {line}") == 1, line
        text = text.replace(f"# {line}", line)
    return text.replace("gpu_model: a100", "gpu_model: fake")


class Submitted(Checkout):
    """A checkout whose snakemake submits two runs of the demo to a cluster: its model, its generator, fewer rows, one task."""

    def __init__(self, folder: Path, model: Path, cluster: Cluster) -> None:
        super().__init__(folder, model)
        self.cluster = cluster
        self.process: subprocess.Popen | None = None
        self.study = folder / "demo.yaml"
        settings = yaml.safe_load((ROOT / "config/studies/demo.yaml").read_text())
        settings["data"]["plans"]["source"]["rows"] = 240
        settings["heldout"] = {"rows": 8}
        settings["base_case"] |= {"batch": [2, 1], "budget": {"steps": STEPS}, "evaluations": STEPS // 30}
        settings["grid"] = {"axes": {"learning_rate": [1.0e-2, 1.0e-3]}}
        settings["training"] = {"save_steps": 20}
        settings["scoring"] |= {"target": ["heldout_loss"], "retention": [], "qualitative": None}
        self.write(settings)
        self.runs = [cell.run for cell in load_study(str(self.study)).cells]
        self.change_trainer(OBEY)
        # The shipped profile but for the seconds that TERM comes before the limit: Slurm counts limits in whole minutes.
        self.profile = folder / "workflow" / "profiles" / "slurm"
        settings_of_it = (self.profile / "config.yaml").read_text()
        assert settings_of_it.count("TERM@120'") == 1
        settings_of_it = edited_profile(settings_of_it.replace("TERM@120'", "TERM@45'"))
        (self.profile / "config.yaml").write_text(settings_of_it)
        for name in ("slow", "broken"):
            (folder / name).mkdir()

    def submit(self, *arguments: str) -> subprocess.Popen:
        """Start snakemake with the profile; its output goes to snakemake.txt."""
        command = [sys.executable, str(IMPATIENT), "--workflow-profile", str(self.profile), *arguments]
        command += ["--config", f"study={self.study}"]
        environment = self.cluster.environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.folder / "scripts")}
        with (self.folder / "snakemake.txt").open("w") as said:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=said, stderr=said)
        return self.process

    @property
    def said(self) -> str:
        return (self.folder / "snakemake.txt").read_text()

    def result(self, run: str, name: str = "record.json", *, stage: str = "train") -> Path:
        return self.folder / "results/demo" / stage / run / name

    def sessions(self, run: str) -> list[tuple[int, int, str]]:
        record = json.loads(self.result(run).read_text())
        return [(session["start_step"], session["end_step"], session["ended"]) for session in record["sessions"]]

    def steps(self, run: str) -> int:
        """Loss rows of a run so far."""
        losses = self.result(run, "losses.csv")
        return losses.read_text().count("train") if losses.exists() else 0

    def jobs(self, run: str) -> dict[int, str]:
        """The jobs that train a run, in their order, and their states."""
        of_run = f"train_wildcards_{run}"
        return {number: state for number, (state, what) in sorted(self.cluster.jobs().items()) if what.endswith(of_run)}

    def job(self, run: str) -> int:
        """The newest job that trains a run."""
        return max(self.jobs(run))

    def ended(self, run: str) -> list[str]:
        """States of a run's jobs that have ended."""
        return [state for state in self.jobs(run).values() if state not in ("PENDING", "RUNNING", "COMPLETING")]

    def told_to_stop(self, run: str) -> int:
        """Sessions of a run that a signal has ended so far."""
        history = self.result(run, "history.jsonl")
        return history.read_text().count('"SIGTERM"') if history.exists() else 0

    def adapter(self, run: str) -> bytes:
        return self.result(run, "adapter/adapter_model.safetensors").read_bytes()


def assert_request(submitted: Submitted, job: int, run: str) -> None:
    """The job requests a GPU and the resources that the plan predicts."""
    study = load_study(str(submitted.study))
    planned = resource_requests(study, study.cells, results=submitted.folder / "results/demo", session_minutes=None)[
        "train"
    ][run]
    said = submitted.cluster.ask("scontrol", "show", "job", str(job))
    hours, minutes = divmod(planned["runtime"], 60)
    assert f"TimeLimit={hours:02d}:{minutes:02d}:00" in said and "gres:gpu:fake:1" in said
    assert "Partition=gpu" in said and "Account=mine" in said
    assert f"mem={planned['mem_mb']}M" in said, said


def wait_until(happened: Callable[[], object], process: subprocess.Popen, seconds: float = 600) -> None:
    """Wait until the condition holds; fail if snakemake ends before."""
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


def test_a_time_limit_a_failure_and_ctrl_c(submitted: Submitted) -> None:
    """One run fails every time. The other continues, reaches its time limit, is submitted again and then cancelled."""
    limited, broken = submitted.runs
    (submitted.folder / "slow" / limited).write_text("1")
    (submitted.folder / "broken" / broken).touch()
    process = submitted.submit("--retries", "1")
    wait_until(lambda: submitted.steps(limited) > 2, process)
    job = submitted.job(limited)
    assert_request(submitted, job, limited)
    limit_minutes = submitted.cluster.seconds(job) // 60 + 1  # the next whole minute: Slurm counts in minutes
    submitted.cluster.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={limit_minutes}")
    wait_until(lambda: submitted.told_to_stop(limited) == 1, process)
    cut = submitted.steps(limited)
    (submitted.folder / "slow" / limited).write_text("5")  # submitted again, it outlasts the other's second failure
    wait_until(lambda: submitted.ended(broken) == ["FAILED", "FAILED"], process)
    wait_until(lambda: submitted.steps(limited) > cut, process)  # submitted again, it continues
    again = submitted.job(limited)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 1

    log = submitted.folder / f".snakemake/slurm_logs/rule_train/{limited}/{job}.log"
    assert f"run {limited} paused at step {cut} of {STEPS} (SIGTERM)" in log.read_text()
    assert not submitted.result(broken).exists()
    assert "broken on purpose" in submitted.result(broken, "failure.json").read_text()
    states = submitted.cluster.jobs()
    assert states[job][0] in ("FAILED", "TIMEOUT")  # the latter where the limit came before its snakemake had ended
    assert states[again][0] in ("CANCELLED", "COMPLETING")
    deadline = time.monotonic() + 60
    while submitted.told_to_stop(limited) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_same_command_goes_on(submitted: Submitted) -> None:
    """After the fix, the rest is done: every run and base scored, tables and page made without a job."""
    limited, broken = submitted.runs
    (submitted.folder / "slow" / limited).unlink()
    (submitted.folder / "broken" / broken).unlink()
    assert submitted.submit().wait(timeout=600) == 0, submitted.said
    (start, cut, why), (again, later, why_again), rest = submitted.sessions(limited)
    assert (start, why, why_again) == (0, "SIGTERM", "SIGTERM") and 0 < cut == again < later < STEPS
    assert rest == (later, STEPS, "finished") and submitted.sessions(broken) == [(0, STEPS, "finished")]
    assert len(list((submitted.folder / "results/demo/score").glob("*/score.json"))) == 3
    assert "<html" in (submitted.folder / "reports/demo/report.html").read_text()
    comments = [comment for _, comment in submitted.cluster.jobs().values()]
    data = [number for number, (_, comment) in submitted.cluster.jobs().items() if "prepare_data" in comment]
    said = submitted.cluster.ask("scontrol", "show", "job", str(data[0]))
    assert "Partition=cpu" in said and "Account=mine" in said and "gres" not in said
    assert not [comment for comment in comments if "compare" in comment or "report" in comment]


def test_the_adapter_is_that_of_an_undisturbed_run(submitted: Submitted, tmp_path: Path) -> None:
    """The adapter of the run that reached its time limit and was then cancelled is equal bit for bit."""
    from train import train_run

    study = load_study(str(submitted.study))
    cell = next(cell for cell in study.cells if cell.run == submitted.runs[0])
    train_run(
        study=study, cell=cell, data_folder=submitted.folder / "results/demo/data" / cell.data, out=tmp_path / cell.run
    )
    undisturbed = tmp_path / cell.run / "adapter" / "adapter_model.safetensors"
    assert submitted.adapter(cell.run) == undisturbed.read_bytes()
