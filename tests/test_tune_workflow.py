"""The search in the plan of jobs: first of all where it is part of the study, and its winner a run like any other."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import search_toys
from study.grid import expand
from study.search_point import search_name
from study.study_file import ROOT, Study, load_study
from train_toys import write_study
from tune import write_result


def planned(study: Study, folder: Path, *arguments: str) -> dict[str, int]:
    """Jobs per rule that snakemake would run now."""
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), "--cores", "1", "--dry-run"]
    command += ["--directory", str(folder), *arguments, "--config", f"study={study.path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = dict(re.findall(r"^(\w+)\s+(\d+)$", done.stdout + done.stderr, re.MULTILINE))
    return {rule: int(count) for rule, count in found.items() if rule not in ("all", "total")}


def make(folder: Path, model: Path, **tune: Any) -> Study:
    settings = search_toys.TUNE | {"trials": 4} | tune
    return load_study(str(write_study(folder, model, tune=settings)))


def finish_search(study: Study, folder: Path) -> str:
    """Leave the files of a prepared data set and a finished search; the winner's run id."""
    results = folder / "results/toy"
    card = results / "data" / expand(study)[0].data / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text("{}")
    search = search_toys.work(results / "tune", tune=study.settings["tune"], name=search_name(study))
    return write_result(study, search, results / "tune")["winner"]["run"]


def test_a_search_that_is_part_of_the_study_comes_first_and_adds_its_winner(tmp_path: Path, toy_llama: Path) -> None:
    study = make(tmp_path, toy_llama)
    assert planned(study, tmp_path) == {"prepare_data": 1, "tune": 1, "compare": 1, "report": 1}, (
        "the winner is unknown yet"
    )
    run = finish_search(study, tmp_path)
    assert run not in {cell.run for cell in expand(study)}
    assert planned(study, tmp_path) == {"train": 2, "score": 3, "compare": 1, "report": 1}
    assert planned(study, tmp_path, f"results/toy/train/{run}/record.json") == {"train": 1}


def test_a_search_beside_the_study_runs_only_when_asked_for(tmp_path: Path, toy_llama: Path) -> None:
    study = make(tmp_path, toy_llama, enabled=False)
    assert planned(study, tmp_path, "tune") == {"prepare_data": 1, "tune": 1}
    finish_search(study, tmp_path)
    assert planned(study, tmp_path) == {"train": 1, "score": 2, "compare": 1, "report": 1}
