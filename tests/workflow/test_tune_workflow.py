"""The search among the jobs: it runs first if it is part of the study, and its winner is a run like any other."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from loragrid.paths import ROOT
from loragrid.searching.trials import search_name
from loragrid.study.study_file import Study, load_study
from tests.fixtures import search_toys
from tests.fixtures.checkout import Checkout
from tests.fixtures.train_toys import write_study
from tune import write_result

pytestmark = pytest.mark.usefixtures("warm")


def planned(study: Study, folder: Path, *arguments: str, config: tuple[str, ...] = ()) -> dict[str, int]:
    """Jobs per rule that snakemake would run now."""
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), "--cores", "1", "--dry-run"]
    command += ["--directory", str(folder), *arguments, "--config", f"study={study.path}", *config]
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
    card = results / "data" / study.cells[0].data / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text("{}")
    search = search_toys.work(results / "tune", tune=study.yaml["tune"], name=search_name(study))
    return write_result(study, search, results / "tune")["winner"]["run"]


def test_a_search_that_is_part_of_the_study_comes_first_and_adds_its_winner(tmp_path: Path, toy_llama: Path) -> None:
    study = make(tmp_path, toy_llama)
    last = {"find_contamination": 1, "compare": 1, "find_next": 1, "report": 1}
    assert planned(study, tmp_path) == {"prepare_data": 1, "tune": 1} | last, "the winner is unknown yet"
    run = finish_search(study, tmp_path)
    assert run not in {cell.run for cell in study.cells}
    assert planned(study, tmp_path) == {"train": 2, "score": 2, "score_base": 1} | last
    assert planned(study, tmp_path, f"results/toy/train/{run}/record.json") == {"train": 1}


@pytest.mark.long
def test_the_winner_of_a_study_of_several_models(tmp_path: Path, toy_llama: Path, toy_gemma: Path) -> None:
    """The winner shares the base case's model and data; a partial report uses what is scored and waits for nothing."""
    path = make(tmp_path, toy_llama).path
    settings = yaml.safe_load(path.read_text())
    settings["models"]["other"] = settings["models"]["toy"] | {"path": str(toy_gemma)}
    settings["grid"] = {"axes": {"model": ["toy", "other"]}}
    path.write_text(yaml.safe_dump(settings))
    study = load_study(str(path))
    run = finish_search(study, tmp_path)
    everything = {"prepare_data": 1, "find_contamination": 1, "train": 3, "score": 3, "score_base": 2}
    assert planned(study, tmp_path) == everything | {"compare": 1, "find_next": 1, "report": 1}, (
        "two cells, their bases and the winner; the base case's data are there"
    )
    assert planned(study, tmp_path, f"results/toy/train/{run}/record.json") == {"train": 1}
    assert planned(study, tmp_path, f"results/toy/score/{run}/score.json") == {"train": 1, "score": 1}
    assert planned(study, tmp_path, config=("partial=true",)) == {"compare": 1, "find_next": 1, "report": 1}


def test_a_search_beside_the_study_runs_only_when_asked_for(tmp_path: Path, toy_llama: Path) -> None:
    study = make(tmp_path, toy_llama, enabled=False)
    assert planned(study, tmp_path, "tune") == {"prepare_data": 1, "tune": 1}
    finish_search(study, tmp_path)
    jobs = {"find_contamination": 1, "train": 1, "score": 1, "score_base": 1, "compare": 1, "find_next": 1, "report": 1}
    assert planned(study, tmp_path) == jobs


@pytest.mark.long
def test_a_search_that_is_part_of_the_study_runs_to_a_compared_winner(tmp_path: Path, toy_llama: Path) -> None:
    """For real, with two workers at once: the page shows a winner that was trained and scored like any run."""
    checkout = Checkout(tmp_path, toy_llama)
    settings = checkout.settings
    settings["grid"] = {}
    settings["base_case"]["budget"] = {"steps": 8}
    small = {"trials": 6, "budget": {"steps": 9}, "evaluations": 3, "validation_rows": 4, "enabled": True, "workers": 2}
    space = {"learning_rate": {"low": 1.0e-4, "high": 1.0e-1, "log": True}, "rank": {"choices": [2, 4]}}
    pruner = {"min_evaluations": 1, "reduction_factor": 2}
    settings["tune"] |= small | {"space": "toy", "spaces": {"toy": space}, "pruner": pruner}
    checkout.write(settings)
    done = checkout.snakemake("--cores", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    results = tmp_path / "results/toy"
    found = json.loads((results / "tune/tune.json").read_text())
    run = found["winner"]["run"]
    assert sum(found["outcomes"].values()) == 6 and {row["attempts"] for row in found["rows"]} == {1}
    assert len({str(row["point"]) for row in found["rows"]}) == 6
    told = [line for line in done.stderr.splitlines() if re.match(r"\[tune\] trial \d+: ", line)]
    assert len(told) == 6, "a worker's line did not reach the terminal"
    assert done.stderr.count("[tune] best: ") == 1, "the search was summed up by every worker"
    assert json.loads((results / "train" / run / "record.json").read_text())["status"] == "finished"
    assert json.loads((results / "score" / run / "score.json").read_text())["status"] == "scored"
    page = (tmp_path / "reports/toy/report.html").read_text()
    assert 'id="search"' in page and "search winner" in page and run in page
