"""The plan drives the scheduler: the real rules with stages that only sleep, under limits on GPU memory."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from loragrid.paths import ROOT
from loragrid.planning.job_resources import resource_requests
from loragrid.study.study_file import Study, load_study

# Replaces every stage: records when it began and ended, and writes the file that its rule declares.
FAKE = """
import json, sys, time
from pathlib import Path
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
stage, out = Path(__file__).stem, Path(options["--out"])
name = options.get("--run") or options.get("--subject") or options.get("--data") if stage in {stages} else stage
if stage == "train":
    from loragrid.runtime.gpu_locks import take_one_gpu
    with open("cards.txt", "a") as cards:
        print(name, take_one_gpu(), file=cards)
began = time.time()
time.sleep({seconds} if stage in ("train", "score") else 0)
file = out / ({{"prepare_data": "card", "train": "record"}}.get(stage, stage) + ".json")
file = out if stage in ("report", "find_contamination") else file
file.parent.mkdir(parents=True, exist_ok=True)
file.write_text("{{}}")
if stage == "report":
    for name in ("figures", "tables"):
        (out.parent / name).mkdir()
with open("times.jsonl", "a") as log:
    log.write(json.dumps([stage, name, began, time.time()]) + "\\n")
"""

STAGES = ("prepare_data", "find_contamination", "train", "score", "compare", "next", "report")


def few_seeds(folder: Path, *seeds: int) -> Study:
    """The study t4 in a copy of the project: every setting with these seeds, the base case with one more for a second."""
    for name in ("workflow", "scripts", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "environment.yml", folder)
    path = folder / "config" / "studies" / "t4.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["grid"]["axes"]["seed"], settings["grid"]["base_case_seeds"] = list(seeds), [3] * (len(seeds) > 1)
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return load_study(str(path))


def run_fake(
    folder: Path, *arguments: str, seconds: float, more: dict[str, str] | None = None
) -> list[tuple[str, str, float, float]]:
    """Run the study of `few_seeds` with fake stages; the jobs in order of their start: stage, name, start, end.

    `more`: further environment variables.
    """
    for stage in STAGES:
        text = FAKE.format(stages=("prepare_data", "train", "score"), seconds=seconds)
        (folder / "scripts" / f"{stage}.py").write_text(text)
    command = [sys.executable, "-m", "snakemake", "--quiet", "--config", "study=t4", *arguments]
    # This copy of the package comes before the installed one.
    environment = os.environ | {"PYTHONPATH": str(folder / "scripts"), "TMPDIR": str(folder)} | (more or {})
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "times.jsonl").read_text().splitlines()]
    return sorted((tuple(line) for line in lines), key=lambda line: line[2])


def most_at_once(jobs: list[tuple[str, str, float, float]]) -> int:
    """Largest number of train and score jobs that were running at one moment."""
    jobs = [job for job in jobs if job[0] in ("train", "score")]
    return max(sum(other[2] <= job[2] < other[3] for other in jobs) for job in jobs)


@pytest.mark.slow
def test_a_t4_runs_one_job_at_a_time(tmp_path: Path) -> None:
    study = few_seeds(tmp_path, 3407)
    jobs = run_fake(tmp_path, "--cores", "4", "--resources", "vram_mib=15000", seconds=0.05)
    runs, bases = len(study.cells), len(study.bases)
    assert [len([job for job in jobs if job[0] == stage]) for stage in ("train", "score")] == [runs, runs + bases]
    assert most_at_once(jobs) == 1


@pytest.mark.slow
def test_a_large_card_runs_several_small_jobs_at_once(tmp_path: Path) -> None:
    study = few_seeds(tmp_path, 3407)
    jobs = run_fake(tmp_path, "--cores", "8", "--resources", "vram_mib=80000", seconds=1)
    # A run of 1B keeps the activations of all rows of an update, and has most of the card to itself.
    assert most_at_once(jobs) >= 2
    asked = resource_requests(study, study.cells, results=Path("nowhere"), session_minutes=None)
    work = [job for job in jobs if job[0] in ("train", "score")]
    for job in work:
        running = [asked[stage][name]["vram_mib"] for stage, name, start, end in work if start <= job[2] < end]
        # Snakemake lowers a larger request to the limit.
        beside = [min(mib, 80_000) for mib in running]
        assert sum(beside) <= 80_000


def test_two_cards_train_two_runs_at_once_each_on_its_own(tmp_path: Path) -> None:
    runs = [cell.run for cell in few_seeds(tmp_path, 3407).cells[:4]]
    targets = [f"results/t4/train/{run}/record.json" for run in runs]
    jobs = run_fake(
        tmp_path,
        *("--cores", "8", "--resources", "gpu=2", "--", *targets),
        seconds=1,
        more={"CUDA_VISIBLE_DEVICES": "0,1"},
    )
    assert most_at_once(jobs) == 2
    cards = dict(line.split() for line in (tmp_path / "cards.txt").read_text().splitlines())
    assert set(cards) == set(runs) and sorted(cards.values()) == ["0", "0", "1", "1"]
    trained = [job for job in jobs if job[0] == "train"]
    for one, other in itertools.combinations(trained, 2):
        if one[3] > other[2]:
            assert cards[one[1]] != cards[other[1]]


@pytest.mark.slow
def test_whatever_has_run_is_a_usable_study(tmp_path: Path) -> None:
    """One after another: each cell is scored right after its training, its base before, in the grid's order."""
    cells = few_seeds(tmp_path, 3407, 1).cells
    jobs = run_fake(tmp_path, "--cores", "1", seconds=0)
    assert len(cells) == 2 * 8 + 1
    order = [name for stage, name, *_ in jobs if stage == "train"]
    assert order == [cell.run for cell in cells]
    at = {(stage, name): index for index, (stage, name, *_) in enumerate(jobs)}
    for cell in cells:
        assert at["score", cell.run] == at["train", cell.run] + 1
        assert at["score", cell.base] < at["train", cell.run]
    # The data of another model are not touched before the turn of its first cell.
    for before, cell in itertools.pairwise(cells):
        if cell.data not in {other.data for other in cells[: cells.index(cell)]}:
            assert at["prepare_data", cell.data] > at["score", before.run]
