"""The plan drives the scheduler: the project's own rules with stages that only sleep, under limits on the card's memory."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.models.shape import find_shape
from loragrid.paths import ROOT
from loragrid.planning import gpu_cards
from loragrid.planning.forecast import memory_here
from loragrid.planning.gpu_cards import choose_device
from loragrid.planning.job_memory import check_target_modules
from loragrid.planning.job_resources import ROOM, START_MINUTES, WHOLE_CARD_MIB, jobs_resources
from loragrid.study.study_file import Study, load_study
from plan import make_plan
from tests.fixtures.studies import changed, without_shapes

# Stands in for every stage: says when it began and ended, and leaves the file that its rule declares.
FAKE = """
import json, sys, time
from pathlib import Path
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
stage, out = Path(__file__).stem, Path(options["--out"])
name = options.get("--run") or options.get("--subject") or options.get("--data") if stage in {stages} else stage
began = time.time()
time.sleep({seconds} if stage in ("train", "score") else 0)
file = out if stage == "report" else out / {{"prepare_data": "card", "train": "record"}}.get(stage, stage)
file = file if stage == "report" else file.with_name(file.name + ".json")
file.parent.mkdir(parents=True, exist_ok=True)
file.write_text("{{}}")
if stage == "report":
    for name in ("figures", "tables"):
        (out.parent / name).mkdir()
with open("times.jsonl", "a") as log:
    log.write(json.dumps([stage, name, began, time.time()]) + "\\n")
"""
STAGES = ("prepare_data", "train", "score", "compare", "report")


def run_fake(folder: Path, *arguments: str, seconds: float) -> list[tuple[str, str, float, float]]:
    """Run the t4 study with fake stages; what ran, in the order in which it began: stage, name, start, end."""
    for name in ("workflow", "scripts", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "environment.yml", folder)
    for stage in STAGES:
        text = FAKE.format(stages=("prepare_data", "train", "score"), seconds=seconds)
        (folder / "scripts" / f"{stage}.py").write_text(text)
    command = [sys.executable, "-m", "snakemake", "--quiet", "--config", "study=t4", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "times.jsonl").read_text().splitlines()]
    return sorted((tuple(line) for line in lines), key=lambda line: line[2])


def most_at_once(jobs: list[tuple[str, str, float, float]]) -> int:
    """Largest number of train and score jobs that were running at one moment."""
    jobs = [job for job in jobs if job[0] in ("train", "score")]
    return max(sum(other[2] <= job[2] < other[3] for other in jobs) for job in jobs)


@pytest.mark.slow
def test_a_t4_runs_one_job_at_a_time(tmp_path: Path) -> None:
    jobs = run_fake(tmp_path, "--cores", "4", "--resources", "vram_mib=15000", seconds=0.05)
    assert (
        len([job for job in jobs if job[0] == "train"]) == 8 and len([job for job in jobs if job[0] == "score"]) == 11
    )
    assert most_at_once(jobs) == 1


@pytest.mark.slow
def test_a_large_card_runs_several_small_jobs_at_once(tmp_path: Path) -> None:
    jobs = run_fake(tmp_path, "--cores", "8", "--resources", "vram_mib=80000", seconds=1)
    assert most_at_once(jobs) >= 4
    study = load_study("t4")
    asked = asked_by(study)
    work = [job for job in jobs if job[0] in ("train", "score")]
    for job in work:
        beside = [asked[stage][name]["vram_mib"] for stage, name, start, end in work if start <= job[2] < end]
        assert sum(beside) <= 80_000


@pytest.mark.slow
def test_whatever_has_run_is_a_usable_study(tmp_path: Path) -> None:
    """One after another: each cell is scored right after its training, its base before, in the grid's order."""
    jobs = run_fake(tmp_path, "--cores", "1", seconds=0)
    cells = load_study("t4").cells
    order = [name for stage, name, *_ in jobs if stage == "train"]
    assert order == [cell.run for cell in cells]
    at = {(stage, name): index for index, (stage, name, *_) in enumerate(jobs)}
    for cell in cells:
        assert at["score", cell.run] == at["train", cell.run] + 1
        assert at["score", cell.base] < at["train", cell.run]
    # The 3B model's data and base are not touched before its cell's turn.
    last = cells[-1]
    assert at["prepare_data", last.data] > at["score", cells[-2].run]


def asked_by(study: Study, *, session_minutes: float | None = None, results: Path = Path("nowhere")) -> dict:
    return jobs_resources(study, study.cells, results=results, session_minutes=session_minutes)


def test_what_jobs_ask_for() -> None:
    study = load_study("t4")
    cells = study.cells
    asked = asked_by(study)
    device = choose_device(study.plan, look=False)
    for cell in cells:
        memory = memory_here(study, cell, find_shape(study.models[cell.model]), device)
        assert asked["train"][cell.run]["vram_mib"] == round(ROOM * memory.total_mib)
        assert asked["score"][cell.base]["vram_mib"] >= asked["score"][cell.run]["vram_mib"]
    # A search's trials take at most 4 rows at a time, as the widest cell does, and the base case's rank.
    wide = next(cell for cell in cells if cell.batch == (4, 8))
    assert asked["tune"]["tune"]["vram_mib"] == asked["train"][wide.run]["vram_mib"]
    of_three = asked_by(changed(study, tune__workers=3))
    assert of_three["tune"]["tune"]["vram_mib"] == pytest.approx(3 * asked["tune"]["tune"]["vram_mib"], abs=3)
    asked = asked_by(without_shapes(study, "llama-3b"))  # an unknown model reserves the whole card
    largest = max(asked["train"][cell.run]["vram_mib"] for cell in cells[:-1])
    assert asked["train"][cells[-1].run]["vram_mib"] == WHOLE_CARD_MIB > largest


def test_jobs_ask_for_twice_the_planned_time_and_no_longer_than_a_session(tmp_path: Path) -> None:
    study = changed(load_study("t4"), plan__session_minutes=None)
    cells, rows = study.cells, {row["run"]: row for row in make_plan(study=study, results=tmp_path)["cells"]}
    long, short = asked_by(study), asked_by(study, session_minutes=55)
    for stage in ("train", "score"):
        for cell in cells:
            minutes = START_MINUTES + 2 * 60 * rows[cell.run][f"{stage}_hours"]
            assert long[stage][cell.run]["runtime"] == math.ceil(minutes)
            assert short[stage][cell.run]["runtime"] == min(math.ceil(minutes), 55)
    assert short["tune"]["tune"]["runtime"] == 55 and long["tune"]["tune"]["runtime"] == 240
    of_model = {cell.model: long["train"][cell.run]["mem_mb"] for cell in cells}
    assert of_model["gemma-270m"] < of_model["llama-1b"] < of_model["llama-3b"] < 20_000
    assert not any(amount % 100 for amount in of_model.values())
    unknown_speed = asked_by(changed(study, plan__card=None))
    assert {request["runtime"] for request in unknown_speed["train"].values()} == {240}


def test_a_gpu_of_the_login_node_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = asked_by(load_study("t4"))
    monkeypatch.setattr(gpu_cards, "gpu_here", lambda: ("NVIDIA H200", 143771))
    assert asked_by(load_study("t4")) == before


def test_an_unknown_card_is_named_when_the_workflow_is_read() -> None:
    study = changed(load_study("t4"), plan__card="T5")
    with pytest.raises(UserError, match=r"'T5' is not in config/cards\.yaml"):
        asked_by(study)


def test_target_modules_that_a_model_lacks_are_named_when_the_workflow_is_read() -> None:
    study = load_study("t4")
    check_target_modules(study, study.cells)
    study = changed(study, training__target_modules=["q_proj", "query"])
    with pytest.raises(
        UserError, match=r"training\.target_modules: a llama model has no module 'query'\. Fix: choose from q_proj"
    ):
        check_target_modules(study, study.cells)
    unknown = without_shapes(study)
    check_target_modules(unknown, unknown.cells)  # the train stage reports it


def test_reading_the_workflow_predicts_without_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from loragrid.planning.job_resources import jobs_resources; "
        "from loragrid.study.study_file import load_study; s = load_study('t4'); "
        "jobs_resources(s, s.cells, results=Path('nowhere'), session_minutes=None); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts").returncode == 0
