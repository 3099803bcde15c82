"""The stage `next` on the files of a compared study: next.json, the proposed study file and the printed table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import compare
import next as next_stage
from loragrid.errors import UserError
from loragrid.paths import ROOT, SCRIPTS
from loragrid.study.study_file import Study, load_study
from tests.fixtures import synthetic


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """A study on disk with one seed in each arm but the base case, compared."""
    folder = tmp_path_factory.mktemp("next")
    grid = {"base_case_seeds": [2, 3], "axes": {"rank": None, "batch": None}}
    study = synthetic.make_study(folder, grid=grid, scoring={"target": ["running_plan"], "retention": ["world_facts"]})
    faults = {study.cells[-1].run: "missing"}
    synthetic.make_results(study, folder / "results", losses=False, faults=faults)
    compare.compare(study=study, results=folder / "results", out=folder / "results" / "compare")
    return study, folder / "results"


def test_next_json_lists_questions_and_options_cheapest_first(compared: tuple[Study, Path], tmp_path: Path) -> None:
    study, results = compared
    found = next_stage.find_next(study=study, results=results, out=tmp_path)
    assert json.loads((tmp_path / "next.json").read_text()) == json.loads(json.dumps(found))
    assert not list(tmp_path.glob("*.yaml"))  # the default run proposes nothing
    options = {option["id"]: option for option in found["options"]}
    ratios = [option["hours_per_closed"] for option in options.values()]
    assert ratios == sorted(ratios)
    texts = [question["text"] for question in found["questions"]]
    assert "Does learning rate 0.1 differ from 0.01?" in texts and "Does gemma-s keep what its base could do?" in texts
    for question in found["questions"]:
        assert question["seeds"] and "points" in question["so_far"]
        if question["cheapest"] is not None:
            assert 0.5 <= options[question["cheapest"]]["closes"][question["name"]] <= 1
    assert found["device"] == synthetic.DEVICE["name"] and found["assumed_spread"] is False


def test_the_same_results_give_the_same_bytes(compared: tuple[Study, Path], tmp_path: Path) -> None:
    study, results = compared
    contents = []
    for folder in (tmp_path / "one", tmp_path / "other"):
        next_stage.find_next(study=study, results=results, out=folder)
        contents.append((folder / "next.json").read_bytes())
    assert contents[0] == contents[1]


def test_the_proposed_study_goes_on_in_the_same_results(
    compared: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, results = compared
    monkeypatch.chdir(tmp_path)
    path, table = next_stage.propose_study(study=study, results=results, out=Path("results/made/next"))
    assert path == Path("results/made/next/made.yaml")
    proposed = load_study(str(path))
    old = {cell.run for cell in study.cells}
    assert proposed.name == study.name and old < {cell.run for cell in proposed.cells}
    assert f"snakemake --cores 1 --directory {tmp_path} --config study=results/made/next/made.yaml" in table
    assert "1 unfinished run of the study" in table
    # Run from the proposed file, the next proposal takes its place.
    again, _ = next_stage.propose_study(
        study=proposed, results=results, out=Path("results/made/next"), budget_hours=0.5
    )
    assert again == path and {cell.run for cell in proposed.cells} <= {cell.run for cell in load_study(str(path)).cells}


def test_from_the_project_the_command_needs_no_directory(
    compared: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, results = compared
    monkeypatch.chdir(ROOT)
    path, table = next_stage.propose_study(study=study, results=results, out=tmp_path)
    assert table.rstrip().endswith(f"snakemake --cores 1 --config study={path}")


def test_a_budget_that_buys_nothing_writes_nothing(compared: tuple[Study, Path], tmp_path: Path) -> None:
    study, results = compared
    path, table = next_stage.propose_study(study=study, results=results, out=tmp_path, budget_hours=1e-6)
    assert path is None and not list(tmp_path.iterdir())
    assert "No step fits into 1e-06 hours. Fix: raise budget_hours." in table


def test_it_needs_what_compare_writes(compared: tuple[Study, Path], tmp_path: Path) -> None:
    study, _ = compared
    with pytest.raises(UserError, match=r"compare\.json: file not found\. Fix: run compare first"):
        next_stage.find_next(study=study, results=tmp_path, out=tmp_path)
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "compare.json").write_text('{"schema": 1}')
    with pytest.raises(UserError, match=r"written by another version of compare\. Fix: run compare again"):
        next_stage.find_next(study=study, results=tmp_path, out=tmp_path)


@pytest.mark.parametrize("hours", ["0", "-1", "many", "inf", "nan"])
def test_hours_that_are_none_are_refused(hours: str) -> None:
    with pytest.raises(
        UserError, match=r"^--budget-hours: not a number of hours above 0 \(.*\)\. Fix: give one, such as 4\.$"
    ):
        next_stage.positive_hours(hours)


def test_it_imports_no_torch_and_ends_in_one_line(tmp_path: Path) -> None:
    script = f"import runpy, sys; sys.argv[0] = {str(SCRIPTS / 'next.py')!r}\n"
    script += "try: runpy.run_path(sys.argv[0], run_name='__main__')\nfinally: assert 'torch' not in sys.modules"
    arguments = ["--study", "demo", "--results", str(tmp_path), "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=SCRIPTS)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
