"""A search after a grid begins with the grid's finished runs, by their loss after a trial's budget."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from loragrid.records.record import RunRecord, read_record, write_record
from loragrid.searching.earlier_runs import EarlierRun, find_earlier_runs, loss_after
from loragrid.searching.hyperband_brackets import EveryBracket
from loragrid.searching.search import Search
from loragrid.searching.search_result import importance, trial_rows
from loragrid.study.search.search_point import at_point
from loragrid.study.sections import Tune
from loragrid.study.settings import Budget
from loragrid.study.study_file import Study
from tests.fixtures import search_toys
from tests.fixtures.search_toys import MODEL_TUNE, TUNE, comparable_rows
from tests.fixtures.train_toys import Toy, make_toy
from tune import open_search, tune

RUNS = [
    EarlierRun(run=f"toy_{index}", point={"learning_rate": rate, "rank": 16, "weight_decay": 0}, loss=loss)
    for index, (rate, loss) in enumerate([(1e-5, 3.0), (1e-3, 1.6), (1e-2, 1.1), (0.1, 1.7)])
]


@pytest.mark.parametrize(
    ("amount", "loss"),
    [(100, 2.0), (150, 1.75), (300, 1.25), (350, 1.125), (400, 1.0), (405, 1.0), (50, None), (500, None)],
)
def test_the_loss_after_a_budget_lies_between_two_measurements(amount: int, loss: float | None) -> None:
    measured = [(100.0, 2.0), (200.0, 1.5), (400.0, 1.0)]
    assert loss_after(measured, Budget(tokens=amount)) == loss
    assert loss_after([], Budget(tokens=amount)) is None


def begun(folder: Path, runs: list[EarlierRun] = RUNS, **changes: Any) -> Search:
    search = Search(folder, name="toy", tune=Tune.read(TUNE | changes))
    search.begin_with(runs)
    return search


def test_earlier_runs_are_completed_trials_and_no_slots(tmp_path: Path) -> None:
    search = begun(tmp_path)
    assert search.settled() == 0 and not any(search.by_slot()) and search.earlier_runs() == RUNS
    search_toys.work(tmp_path)
    states = [trial.state for trial in search.trials()[:4]]
    assert states == [TrialState.COMPLETE] * 4 and search.trials()[2].value == 1.1
    rows = trial_rows(search)
    assert len(rows) == TUNE["trials"] and [row["attempts"] for row in rows] == [1] * TUNE["trials"]
    # The sampler has four finished trials, as many as it needs for a model, in every bracket.
    assert {row["bracket"] for row in rows} == {0, 1, 2} and all(row["modelled"] for row in rows)
    assert importance(search)["trials"] <= TUNE["trials"]


def test_they_are_seen_by_every_bracket_and_compete_in_none(tmp_path: Path, searched: Search) -> None:
    assert EveryBracket() == 0 and EveryBracket() == 2 and EveryBracket() != "2"
    assert (EveryBracket() != 2) is False
    # A random sampler learns nothing, so only pruning could differ.
    tune = {"sampler": "random"}
    plain = search_toys.work(tmp_path / "plain", tune=TUNE | tune)
    begun(tmp_path / "begun", **tune)
    after = search_toys.work(tmp_path / "begun", tune=TUNE | tune)
    assert comparable_rows(after) == comparable_rows(plain)


def test_a_search_that_began_takes_no_further_runs(tmp_path: Path) -> None:
    search = begun(tmp_path, RUNS[:2])
    begun(tmp_path, RUNS[:3])  # A worker was killed after two of them.
    assert search.earlier_runs() == RUNS[:3]
    with search.claim_next() as claim:
        search_toys.train(search, claim)
    begun(tmp_path)
    assert search.earlier_runs() == RUNS[:3]


def test_a_search_with_earlier_runs_is_the_same_again(tmp_path: Path) -> None:
    rows = []
    for name in ("one", "other"):
        begun(tmp_path / name, trials=8)
        rows.append(comparable_rows(search_toys.work(tmp_path / name, tune=TUNE | {"trials": 8})))
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def trained(toy_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Toy, Path]:
    """A study whose base case and one other run at a point of the space are trained."""
    folder = tmp_path_factory.mktemp("trained")
    settings = MODEL_TUNE | {"budget": {"steps": 6}, "heldout_rows": None, "trials": 3}
    space = settings["spaces"]["toy"] | {"warmup": {"choices": [{"steps": 0}, {"steps": 2}]}}
    toy = make_toy(folder, toy_llama, tune=settings | {"spaces": {"toy": space}}, grid={"axes": {"rank": [4, 2]}})
    for cell in toy.study.cells:
        out = folder / "results" / "train" / cell.run
        dataclasses.replace(toy, cell=cell).train(out)
    return toy, folder / "results"


def with_tune(study: Study, **changes: Any) -> Study:
    return dataclasses.replace(study, yaml=study.yaml | {"tune": study.yaml["tune"] | changes})


def test_finished_runs_in_the_space_are_found(trained: tuple[Toy, Path], capfd: pytest.CaptureFixture) -> None:
    toy, results = trained
    runs, why_not = find_earlier_runs(toy.study, results)
    assert {run.run for run in runs} == {cell.run for cell in toy.study.cells} and why_not is None
    base = next(run for run in runs if run.run == toy.cell.run)
    assert base.point == {
        "learning_rate": 0.01,
        "rank": 4,
        "alpha": "rank",
        "batch": [2, 2],
        "warmup": {"steps": 2},
        "weight_decay": 0.01,
    }
    with open(results / "train" / base.run / "losses.csv", newline="") as file:
        heldout = {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file) if row["kind"] == "heldout"}
    assert sorted(heldout) == [0, 4, 8, 12]
    assert base.loss == pytest.approx((heldout[4] + heldout[8]) / 2), "a trial has 6 updates"
    found = tune(study=toy.study, data_folder=toy.data, out=results / "tune")
    assert found["earlier_runs"] == json.loads(json.dumps([dataclasses.asdict(run) for run in runs]))
    assert len(found["rows"]) == 3
    assert f"[tune] begins with 2 finished runs of the grid: {runs[0].run}, {runs[1].run}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"heldout_rows": 5}, "their loss is that of all 10 held-out rows, a trial's of 5"),
        ({"budget": {"steps": 2}}, "none was measured before and after 2 steps"),
        ({"budget": {"steps": 40}}, "none was measured before and after 40 steps"),
        ({"objective": "world_facts:acc"}, "they were scored at the end of their own budget"),
    ],
)
def test_why_runs_that_fit_are_not_used(trained: tuple[Toy, Path], changes: dict[str, Any], reason: str) -> None:
    toy, results = trained
    study = with_tune(toy.study, **changes)
    assert find_earlier_runs(study, results) == (
        [],
        f"2 finished runs fit the space but cannot start the search: {reason}",
    )


def test_other_runs_do_not_fit(trained: tuple[Toy, Path], tmp_path: Path) -> None:
    toy, results = trained
    space = dict(toy.study.yaml["tune"]["spaces"]["toy"])
    narrow = with_tune(toy.study, spaces={"toy": space | {"rank": {"choices": [2]}}})
    (run,), _ = find_earlier_runs(narrow, results)
    assert run.point["rank"] == 2
    # The base case has a rank of 4: a space without a rank holds only that run.
    del space["rank"]
    (run,), _ = find_earlier_runs(with_tune(toy.study, spaces={"toy": space}), results)
    assert run.run == toy.cell.run
    elsewhere = at_point(toy.study, {"seed": 8})
    elsewhere = dataclasses.replace(elsewhere, yaml=elsewhere.yaml | {"tune": toy.study.yaml["tune"]})
    assert find_earlier_runs(elsewhere, results) == ([], None), "another seed than a trial's"
    record = read_record(results / "train" / toy.cell.run / "record.json", RunRecord)
    folder = tmp_path / "train" / toy.cell.run
    write_record(folder / "record.json", dataclasses.replace(record, status="diverged"))
    assert find_earlier_runs(toy.study, tmp_path) == ([], None)
    (folder / "record.json").write_text("{}")
    assert find_earlier_runs(toy.study, tmp_path) == ([], None)


def test_a_search_that_began_looks_for_no_runs(trained: tuple[Toy, Path], tmp_path: Path) -> None:
    toy, _ = trained
    search = open_search(toy.study, tmp_path / "tune", higher_is_better=False)
    with search.claim_next() as claim:
        search.finish(claim, outcome="SIGTERM")
    again = open_search(toy.study, tmp_path / "tune", higher_is_better=False)
    assert again.earlier_runs() == [] and len(again.trials()) == 1
