"""The tune stage on a toy model: its tables and result, its winner as an ordinary run, pauses and failures."""

import csv
import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Failed, Paused, UserError
from loragrid.paths import ROOT
from loragrid.runtime.session import SessionClock, StopSignals
from loragrid.searching.search import Search
from loragrid.searching.trials import TrialRunner, search_name
from loragrid.study.search.search_point import cell_at, settings_sha256
from loragrid.study.search.winner import read_search, winner_cell
from loragrid.study.study_file import Study, load_study
from loragrid.training.backends.trl import TrlBackend
from tests.fixtures.search_toys import MODEL_TUNE
from tests.fixtures.studies import changed
from tests.fixtures.train_toys import Toy
from tune import run_trial, tune


@pytest.fixture(scope="module")
def tuned(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a study whose search is done."""
    results = tmp_path_factory.mktemp("results")
    tune(study=toy.study, data_folder=toy.data, out=results / "tune")
    return results


def variant(study: Study, **changes: Any) -> Study:
    """The study with other keys in `tune`."""
    return replace(study, yaml=study.yaml | {"tune": study.yaml["tune"] | changes})


def test_the_search_leaves_its_result_and_tables(toy: Toy, tuned: Path) -> None:
    result = json.loads((tuned / "tune" / "tune.json").read_text())
    rows = list(csv.DictReader(open(tuned / "tune" / "trials.csv")))
    assert [int(row["slot"]) for row in rows] == list(range(5)) and result["search"] == search_name(toy.study)
    assert set(MODEL_TUNE["spaces"]["toy"]) < set(rows[0])
    assert sum(result["outcomes"].values()) == 5 and result["outcomes"]["complete"] >= 1
    complete = [row for row in result["rows"] if row["outcome"] == "complete"]
    assert result["best"]["loss"] == min(row["loss"] for row in complete)
    assert result["chosen_on"] == {"training": 24, "validation": 6}
    curves = list(csv.DictReader(open(tuned / "tune" / "curves.csv")))
    assert len(curves) == sum(len(row["curve"]) for row in result["rows"])
    assert not list((tuned / "tune").rglob("checkpoint*")), "no checkpoints are kept"


def test_the_winner_is_an_ordinary_study_of_one_run(toy: Toy, tuned: Path) -> None:
    result = json.loads((tuned / "tune" / "tune.json").read_text())
    study = load_study(str(tuned / "tune" / result["winner"]["study_file"]))
    (cell,) = study.cells
    assert study.name == toy.study.name and cell.run == result["winner"]["run"]
    assert cell.identity == cell_at(toy.study, result["best"]["point"]).identity
    settings, point = cell.settings, result["best"]["point"]
    assert settings.budget == toy.cell.settings.budget, "the winner trains at the grid's full budget"
    assert settings.evaluations == toy.cell.settings.evaluations
    assert settings.warmup.steps == point["warmup"]["steps"] and settings.learning_rate == point["learning_rate"]
    assert settings.alpha == point["rank"] * (2 if point["alpha"] == "2 * rank" else 1)
    found = winner_cell(toy.study, tuned)
    assert found.run == cell.run and found.departs == {"search": "winner"}
    assert winner_cell(variant(toy.study, enabled=False), tuned) is None
    assert winner_cell(variant(toy.study, seed=2), tuned) is None, "the winner of another search was taken"
    assert read_search(variant(toy.study, trials=50, workers=3), tuned) == result


def test_a_winner_that_the_grid_contains_has_the_same_run_id(toy: Toy) -> None:
    case = toy.study.yaml["base_case"]
    same = {"learning_rate": case["learning_rate"], "rank": 4, "batch": [2, 2], "alpha": "1 * rank"}
    assert cell_at(toy.study, same | {"warmup": {"steps": 2}, "weight_decay": 0.01}).run == toy.cell.run


def test_the_search_changes_no_run_id_of_the_grid(toy: Toy) -> None:
    none = replace(toy.study, yaml=toy.study.yaml | {"tune": None})
    assert [cell.run for cell in none.cells] == [cell.run for cell in toy.study.cells]


def test_settings_of_the_search_change_its_name_but_more_trials_do_not(toy: Toy) -> None:
    name = search_name(toy.study)
    assert name.startswith("toy-")
    for more in ({"trials": 50}, {"workers": 4}, {"enabled": False}):
        assert search_name(variant(toy.study, **more)) == name
    for other in (
        {"seed": 2},
        {"pruner": None},
        {"budget": {"tokens": 700}},
        {"evaluations": 4},
        {"validation_rows": None},
        {"sampler": "random"},
        {"objective": "world_sums:acc"},
    ):
        assert search_name(variant(toy.study, **other)) != name
    longer = changed(toy.study, base_case__budget={"steps": 99}, base_case__evaluations=4)
    assert settings_sha256(longer) == settings_sha256(toy.study)


def test_a_finished_search_writes_its_result_again_without_loading_anything(
    toy: Toy, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((tuned / "tune" / "tune.json").read_text())
    monkeypatch.setattr(TrialRunner, "load", lambda self: pytest.fail("the base was loaded"))
    assert tune(study=toy.study, data_folder=toy.data, out=tuned / "tune")["rows"] == before["rows"]


def test_a_command_stopped_in_a_trial_pauses_and_continues(toy: Toy, tuned: Path, tmp_path: Path) -> None:
    """SIGTERM, then to the end: the same trials as in one go; test_search.py tries kills."""
    command = [sys.executable, str(ROOT / "scripts/tune.py"), "--study", str(toy.study.path)]
    command += ["--data", str(toy.data), "--out", str(tmp_path / "tune")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    losses = tmp_path / "tune" / "trials" / search_name(toy.study) / "0001" / "losses.csv"
    deadline = time.monotonic() + 90
    while not losses.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 75 and "Traceback" not in said, said
    assert not (tmp_path / "tune" / "tune.json").exists()
    result = tune(study=toy.study, data_folder=toy.data, out=tmp_path / "tune")
    whole = json.loads((tuned / "tune" / "tune.json").read_text())
    for one, other in zip(result["rows"], whole["rows"]):
        assert {key: one[key] for key in ("point", "outcome", "curve")} == {
            key: json.loads(json.dumps(other[key])) for key in ("point", "outcome", "curve")
        }


def test_the_session_limit_pauses_the_search(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(Paused, match=r"paused after 0 of 5 trials \(paused: session_minutes\)"):
        tune(study=toy.study, data_folder=toy.data, out=tmp_path, session_ends=time.monotonic())


def test_the_sampler_learns_from_a_diverged_trial(toy: Toy, tmp_path: Path) -> None:
    space = {"toy": MODEL_TUNE["spaces"]["toy"] | {"learning_rate": {"choices": [1.0e9]}}}
    study = variant(toy.study, spaces=space, trials=1)
    search, runner = Search(tmp_path, name="x", tune=study.tune), TrialRunner(study, toy.data)
    with search.claim_next() as claim:
        run_trial(search, claim, runner, stop=StopSignals(), clock=SessionClock(None))
    (trial,) = search.trials()
    assert trial.user_attrs["outcome"] == "diverged" and trial.state.name == "PRUNED"


def test_a_mistake_of_the_user_is_one_line(toy: Toy, tmp_path: Path) -> None:
    none = replace(toy.study, yaml=toy.study.yaml | {"tune": None})
    with pytest.raises(UserError, match=r"toy\.yaml: tune: null\. Fix: describe a search there"):
        tune(study=none, data_folder=toy.data, out=tmp_path)
    with pytest.raises(UserError, match="is missing"):
        tune(study=toy.study, data_folder=tmp_path / "absent", out=tmp_path / "out")


def test_a_full_disk_is_not_the_fault_of_a_trial(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TrlBackend, "trainer", full)
    with pytest.raises(Failed, match=r"the disk is full \(No space .*Fix: free space there"):
        tune(study=toy.study, data_folder=toy.data, out=tmp_path)
    (trials, *others) = Search(tmp_path, name=search_name(toy.study), tune=toy.study.tune).by_slot()
    assert trials[0].user_attrs["outcome"] == "left: OSError" and not any(others)
