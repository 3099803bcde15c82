"""The whole chain by Snakemake: planned, run on a toy study, run again, changed, killed and resumed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from loragrid.paths import ROOT
from tests.fixtures.checkout import Checkout

pytestmark = pytest.mark.usefixtures("warm")
# Jobs that follow any new score.
LAST = {"compare": 1, "find_next": 1, "report": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, toy_llama: Path) -> Checkout:
    # Braces are wildcards to Snakemake.
    checkout = Checkout(tmp_path_factory.mktemp("check {out} of {}"), toy_llama)
    jobs = {"prepare_data": 1, "find_contamination": 1, "train": 2, "score": 2, "score_base": 1}
    assert checkout.planned() == jobs | LAST
    done = checkout.snakemake()
    assert done.returncode == 0, done.stderr[-3000:]
    (checkout.folder / "said.txt").write_text(done.stderr)
    return checkout


def test_the_shipped_demo_plans_at_least_eight_runs_and_two_bases() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--forceall"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    jobs = dict(re.findall(r"^(\w+)\s+(\d+)$", done.stdout + done.stderr, re.MULTILINE))
    assert int(jobs["train"]) >= 8 and jobs["score"] == jobs["train"] and int(jobs["score_base"]) == 2


@pytest.mark.slow
def test_the_chain_ends_in_a_report(finished: Checkout) -> None:
    page = (finished.folder / "reports/toy/report.html").read_text()
    assert "<html" in page and len(finished.adapters()) == 2
    for record in (finished.folder / "results/toy/train").glob("*/record.json"):
        value = json.loads(record.read_text())
        assert value["status"] == "finished" and value["steps"] == 60
        assert value["run"] in page


@pytest.mark.slow
def test_the_terminal_says_what_is_done_the_result_of_each_job_and_where_the_report_is(finished: Checkout) -> None:
    said = (finished.folder / "said.txt").read_text()
    lines = [line for line in said.splitlines() if not line.startswith("  … ")]
    positions = [re.match(r"\[ *(\d+)/10( · .* left)?\] ", line) for line in lines]
    assert [int(found[1]) for found in positions if found] == list(range(1, 11)), said
    assert any(line.startswith("loragrid | toy: ") for line in lines[:3]), said
    assert any("2 runs of 1 base model (toy)" in line for line in lines)
    assert len(re.findall(r"\] trained toy_lr\S+: 60 steps, held-out loss [\d.]+ → [\d.]+ \(", said)) == 1, said
    assert len(re.findall(r"\] scored toy", said)) == 2 and len(re.findall(r"\] scored base toy: ", said)) == 1
    assert lines[-1].endswith(f"The report: {finished.folder / 'reports/toy/report.html'}") and len(lines) < 20, said


@pytest.mark.slow
def test_a_finished_study_has_nothing_to_do_even_after_a_comment_or_a_touch(finished: Checkout) -> None:
    assert finished.planned() == {}
    script = finished.folder / "scripts/train.py"
    script.write_text(script.read_text() + "\n# a remark\n")
    os.utime(finished.folder / "rows.json")
    assert finished.planned() == {}


@pytest.mark.slow
def test_a_finished_study_is_finished_however_its_path_is_written_and_wherever_it_lies(
    finished: Checkout, tmp_path: Path
) -> None:
    absolute = finished.study
    finished.study = Path("toy.yaml")
    assert finished.planned() == {}
    finished.study = tmp_path / "toy.yaml"  # with the file that it names beside it, as before
    for name in ("toy.yaml", "rows.json"):
        shutil.copy(finished.folder / name, tmp_path)
    assert finished.planned() == {}
    finished.study = absolute


@pytest.mark.slow
def test_one_more_learning_rate_trains_and_scores_one_more_run(finished: Checkout) -> None:
    before = finished.settings
    after = finished.settings
    after["grid"]["axes"]["learning_rate"].append(3.0e-3)
    finished.write(after)
    assert finished.planned() == {"train": 1, "score": 1} | LAST
    finished.write(before)


@pytest.mark.slow
def test_one_more_task_is_scored_and_looked_for_in_the_rows_and_trains_nothing(finished: Checkout) -> None:
    before = finished.settings
    after = finished.settings
    after["scoring"]["retention"].append("world_lists")
    finished.write(after)
    assert finished.planned() == {"find_contamination": 1, "score": 2, "score_base": 1} | LAST
    finished.write(before)


@pytest.mark.slow
def test_the_complete_study_file_is_written_as_the_study_was_run(finished: Checkout) -> None:
    complete = finished.folder / "results/toy/study.yaml"
    written = yaml.safe_load(complete.read_text())
    assert written["base_case"]["dropout"] == 0.0 and "dropout" not in finished.settings["base_case"]
    # A dry run runs nothing.
    complete.unlink()
    assert finished.planned() == {} and not complete.exists()


@pytest.mark.slow
def test_an_edit_of_a_stage_s_logic_runs_that_stage_again(finished: Checkout) -> None:
    jobs = {"train": {"train": 2}, "score": {"score": 2, "score_base": 1}, "report": {"report": 1}}
    for stage, expected in jobs.items():
        script = finished.folder / f"scripts/{stage}.py"
        text = script.read_text()
        script.write_text(text + "\nUNUSED = 1\n")
        assert finished.planned().items() >= expected.items()
        script.write_text(text)
    assert finished.planned() == {}


@pytest.mark.slow
def test_saving_more_often_or_pausing_changes_nothing_that_is_finished(finished: Checkout) -> None:
    before = finished.settings
    after = finished.settings
    after["training"] |= {"save_steps": 3, "session_minutes": 55, "keep_checkpoints": 1}
    finished.write(after)
    assert finished.planned() == {}
    finished.write(before)


@pytest.mark.long
def test_next_writes_a_study_that_goes_on_with_everything_finished(finished: Checkout) -> None:
    done = finished.snakemake("next")
    assert done.returncode == 0, done.stderr[-3000:]
    path = finished.folder / "results/toy/next/toy.yaml"
    assert (
        "What would decide it: study toy" in done.stdout and f"study={path.relative_to(finished.folder)}" in done.stdout
    )
    before, finished.study = finished.study, path
    planned = finished.planned()
    # New runs alone are trained and scored; the base keeps its score.
    assert planned == {"train": planned["train"], "score": planned["train"]} | LAST
    finished.study = before
    assert finished.planned() == {}


@pytest.mark.slow
def test_a_run_killed_with_its_group_resumes_to_the_same_adapter(
    finished: Checkout, tmp_path: Path, toy_llama: Path
) -> None:
    killed = Checkout(tmp_path, toy_llama)
    process = subprocess.Popen(
        killed.command("--until", "train"),
        cwd=killed.folder,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoints = killed.folder / "results/toy/train"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("*/checkpoints/checkpoint-*/manifest.json")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(checkpoints.glob("*/record.json"))

    assert killed.snakemake("--unlock").returncode == 0
    done = killed.snakemake("--until", "train")
    assert done.returncode == 0, done.stderr[-3000:]
    assert killed.adapters() == finished.adapters()
    histories = [json.loads(file.read_text()) for file in checkpoints.glob("*/record.json")]
    assert any(len(record["sessions"]) > 1 for record in histories)

@pytest.mark.slow
def test_a_wiped_machine_takes_up_what_was_copied_elsewhere(finished: Checkout, tmp_path: Path) -> None:
    """A finished study is copied, and another machine makes only what is not; a copy of other code is not taken."""
    place = f"backup=folder:{tmp_path / 'copies'}"
    done = subprocess.run([*finished.command(), place], cwd=finished.folder, capture_output=True, text=True)
    assert done.returncode == 0 and "6 finished results are copied to folder:" in done.stderr, done.stderr[-3000:]
    again = subprocess.run([*finished.command(), place], cwd=finished.folder, capture_output=True, text=True)
    assert again.returncode == 0 and "finished results" not in again.stderr

    there = finished.moved(tmp_path / "there")
    data = next((tmp_path / "copies/toy/data").glob("*/finished-*.json"))
    data.rename(data.with_name("finished-0123456789ab.json"))
    command = [*there.command("--until", "train"), place]
    done = subprocess.run(command, cwd=there.folder, capture_output=True, text=True)
    assert done.returncode == 0 and "5 finished results are taken from folder:" in done.stderr, done.stderr[-3000:]
    assert f"the copy of data {data.parent.name} is not taken (it is of other code or tasks)" in done.stderr
    # Each job copies what it made.
    assert [path.name for path in data.parent.glob("*.json")] == [data.name]
    # The rows are made again and prove equal, so nothing is trained again.
    assert done.stderr.count("only its record is written again") == 2
    assert there.adapters() == finished.adapters()
    for record in (finished.folder / "results/toy/train").glob("*/record.json"):
        kept = json.loads((there.folder / "results/toy/train" / record.parent.name / "record.json").read_text())
        assert kept["finished_at"] == json.loads(record.read_text())["finished_at"]


# The last test of the finished study: it leaves a further run there.
@pytest.mark.long
def test_the_axis_dropout_added_to_a_finished_study_trains_only_its_cells(finished: Checkout) -> None:
    after, trained = finished.settings, finished.adapters()
    after["grid"]["axes"]["dropout"] = [0.0, 0.1]
    finished.write(after)
    assert finished.planned() == {"train": 1, "score": 1} | LAST
    done = finished.snakemake()
    assert done.returncode == 0, done.stderr[-3000:]
    (new,) = finished.adapters().keys() - trained.keys()
    assert "_dropout0.1_" in new and finished.adapters().items() > trained.items()
    assert new in (finished.folder / "reports/toy/report.html").read_text()


def test_a_user_s_mistake_is_one_line_and_not_a_traceback(tmp_path: Path) -> None:
    study = tmp_path / "bad.yaml"
    study.write_text((ROOT / "config/studies/demo.yaml").read_text().replace("base_case:", "base_case:\n  rank: 0"))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--directory", tmp_path, "--config", f"study={study}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    lines = [
        line
        for line in done.stderr.splitlines()
        if not line.startswith(("Using workflow specific profile", "Config file"))
    ]
    assert len(lines) == 1 and lines[0].startswith(
        "error: bad.yaml: base_case.rank: below the minimum of 1 (0). Fix: give 1 or more"
    )
    assert not (tmp_path / "results").exists()


def test_the_package_of_another_checkout_is_refused_with_a_command_to_paste(tmp_path: Path) -> None:
    other = tmp_path / "other checkout"
    shutil.copytree(ROOT / "workflow", other / "workflow")
    shutil.copytree(ROOT / "config", other / "config")
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "--directory", tmp_path]
    done = subprocess.run([*command, "-s", other / "workflow/Snakefile"], capture_output=True, text=True, cwd=tmp_path)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and line.startswith(f"error: the package loragrid comes from {ROOT}. Fix: ")
    assert line.endswith(f"-e '{other}'")


def test_a_snakemake_outside_of_the_environment_is_one_line(tmp_path: Path) -> None:
    """Without the package Snakemake knows no logger `loragrid`, which the default profile asks for where it is."""
    outside = "import sys; sys.path[:] = [place for place in sys.path if place != {scripts!r}]; import snakemake.cli; {call}"
    call = f"snakemake.cli.main(['--dry-run', '--directory', {str(tmp_path)!r}])"
    program = outside.format(scripts=str(ROOT / "scripts"), call=call)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    *before, line = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: the package loragrid is not installed. Fix: "), done.stderr
    assert all(other.startswith("Using workflow specific profile") for other in before)


def test_a_checkout_behind_a_symbolic_link_is_the_same_checkout(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ROOT)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "--directory", tmp_path]
    snakefile = tmp_path / "link/workflow/Snakefile"
    done = subprocess.run([*command, "-s", snakefile], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
