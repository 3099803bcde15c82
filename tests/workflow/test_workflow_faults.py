"""Faults of the whole workflow: signals to Snakemake, its death, a wiped machine, two at once, a kill during writing."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import compare
import report
from loragrid.paths import ROOT
from loragrid.runtime.fork_server import FOLDER_VARIABLE
from loragrid.study.study_file import load_study
from tests.fixtures import synthetic
from tests.fixtures.checkout import Checkout

pytestmark = pytest.mark.usefixtures("warm")

STEPS = 120
# The copied trainer takes a second per update while a file `slow` lies beside the study: a signal finds it at work. It notes in
# a file `ends` until when its session lasts, which is over once a file `over` lies there.
SLOWLY = """
def _go_slowly() -> None:
    import time
    from loragrid.training.progress import Progress
    from loragrid.runtime.session import SessionClock
    here = Path(__file__).parents[1]
    begin, left = SessionClock.__init__, SessionClock.left
    def noted(self, ends):
        begin(self, ends)
        with open(here / "ends", "a") as file:
            print(ends, file=file)
    SessionClock.__init__ = noted
    SessionClock.left = lambda self: 0.0 if (here / "over").exists() else left(self)
    must_stop = Progress.must_stop
    def slowly(self, step):
        if (here / "slow").exists():
            time.sleep(1.0)
        return must_stop(self, step)
    Progress.must_stop = slowly


if __name__ == "__main__":
    _go_slowly()
"""


class Workplace(Checkout):
    """A checkout with a study of one run, whose results lie in a folder of their own as on a mounted drive."""

    def __init__(self, folder: Path, model: Path, results: Path) -> None:
        super().__init__(folder, model)
        self.drive = results
        self.started: list[subprocess.Popen] = []
        settings = self.settings
        settings["grid"]["learning_rate"] = [1.0e-2]
        settings["data"]["source"] = {"path": str(folder.parent / "rows.json")}
        settings["training"] |= {"budget": {"steps": STEPS}, "save_steps": 10, "evaluate_every_steps": 30}
        settings["scoring"]["retention"] = []
        self.write(settings)
        shutil.move(folder / "rows.json", folder.parent)
        script = folder / "scripts" / "train.py"
        script.write_text(script.read_text().replace('\nif __name__ == "__main__":\n', SLOWLY))
        (folder / "slow").touch()

    @property
    def run(self) -> Path:
        (cell,) = load_study(str(self.study)).cells
        return self.drive / "results" / self.study.stem / "train" / cell.run

    @property
    def steps(self) -> int:
        """Updates of the run that are in its table of losses."""
        losses = self.run / "losses.csv"
        return losses.read_text().count(",train,") if losses.exists() else 0

    def command(self, *arguments: str) -> list[str]:
        return super().command(*arguments, "--directory", str(self.drive))

    def start(self) -> subprocess.Popen:
        """Snakemake on the run, in a process group of its own, as a terminal starts it."""
        target = str((self.run / "record.json").relative_to(self.drive))
        said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(self.command(target), cwd=self.folder, start_new_session=True, **said)
        self.started.append(process)
        return process

    def end(self, snakemake: subprocess.Popen) -> str:
        """What it said until it ended, which is no success."""
        said, _ = snakemake.communicate(timeout=300)
        assert snakemake.returncode == 1, said
        assert not (self.run / "record.json").exists()
        return said

    def wait_for(self, happened: Callable[[], object]) -> None:
        deadline = time.monotonic() + 300
        while not happened():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def wait_for_more(self, steps: int) -> None:
        """Until that many updates more are made."""
        wanted = self.steps + steps
        self.wait_for(lambda: self.steps >= wanted)

    def trainer(self) -> int:
        """The process that trains the run."""
        deadline = time.monotonic() + 60
        while not (text := (self.run / "trainer.lock").read_text()):  # emptied and written anew as it changes hands
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return json.loads(text)["pid"]

    def prepare_other_study(self) -> None:
        """Another study in the same folder, at the same time: its data are prepared."""
        other = self.study.with_name("other.yaml")
        shutil.copy(self.study, other)
        (cell,) = load_study(str(other)).cells
        card = f"results/other/data/{cell.data}/card.json"
        command = [argument.replace(str(self.study), str(other)) for argument in self.command(card)]
        assert subprocess.run(command, cwd=self.folder).returncode == 0 and (self.drive / card).exists()

    def move(self, to: Path) -> None:
        """Another machine: the code elsewhere, nothing left where it was."""
        shutil.copytree(self.folder, to, symlinks=True)
        shutil.rmtree(self.folder)
        self.folder, self.study = to, to / self.study.name


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
    """Faults 3, 4 and 19 and a wiped machine, one after the other on one run; its adapter is that of an undisturbed run."""
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

    # SIGKILL to Snakemake alone: its trainer goes on as an orphan. A new one's trainer does not train beside it.
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
    """Fault 4: Snakemake takes its record for half written and deletes it before the job runs again."""
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
    """Two cells: the first pauses at a checkpoint, and the second, whose session it was too, does not begin."""
    settings = work.settings
    settings["grid"]["learning_rate"] = [1.0e-2, 1.0e-3]
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
    """The adapter is, bit by bit, that of the run trained in one go."""
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
    assert lines[0].startswith("error: session_minutes: abc not a number of minutes above 0")


# --- 18: killed while writing


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    synthetic.make_results(synthetic.make_study(folder), folder / "results")
    return folder


def write_all(folder: Path, out: Path) -> None:
    """Compare and report, as their rules call them."""
    study = synthetic.make_study(folder)
    compare.compare(study=study, results=folder / "results", out=folder / "results/compare")
    report.report(study=study, results=folder / "results", out=out)


def files_of(*folders: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file()}


def kill_at(number: int, work: Callable[[], None]) -> bool:
    """Do the work in a child that dies by SIGKILL with its n-th file half written. Returns whether it came so far."""
    child = os.fork()
    if child == 0:
        left = number

        def half_written(handle: int) -> None:
            nonlocal left
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                return
            left -= 1
            if left < 0:
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = half_written
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def test_tables_and_page_are_whole_or_absent_after_a_kill_at_any_file(scored: Path, tmp_path: Path) -> None:
    """Fault 18: no half-written file stands under its name, compare.json and the page come last, and the next call ends it."""
    tables, pages = scored / "results/compare", tmp_path / "reports"
    write_all(scored, pages / "report.html")
    whole = files_of(tables, pages)
    for folder in (tables, pages):
        shutil.rmtree(folder)
    for number in (0, 4, len(whole) // 2, len(whole) - 1):  # a table, compare.json or near it, a picture, the page
        assert kill_at(number, lambda: write_all(scored, pages / "report.html"))
        found = {name: content for name, content in files_of(tables, pages).items() if not name.endswith(".partial")}
        assert found.items() <= whole.items() and len(found) == number
        assert "report.html" not in found and ("compare.json" in found) == (number > 4)
    write_all(scored, pages / "report.html")
    found = {name: content for name, content in files_of(tables, pages).items() if not name.endswith(".partial")}
    assert found == whole
