"""The tune stage on a toy model: trials are the grid's training, leak nothing, fail alone; the search ends in an ordinary run."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Failed, Paused, UserError
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import sha256_json
from loragrid.runtime.session import SessionClock, StopSignals
from loragrid.searching.search import Search, search_name
from loragrid.searching.trials import TrialRunner, TrialResult, evenly_spaced
from loragrid.study.search_point import at_point, cell_at, settings_sha256
from loragrid.study.sections import Budget
from loragrid.study.study_file import Study, load_study
from loragrid.study.winner import read_search, winner_cell
from loragrid.training.backends.trl import TrlBackend
from tests.fixtures.train_toys import Toy, make_toy, rows_of
from tune import run_trial, tune

TUNE: dict[str, Any] = {
    "enabled": True,
    "trials": 5,
    "budget": {"tokens": 600},
    "evaluations": 3,
    "heldout_rows": 5,
    "objective": "heldout_loss",
    "seed": 1,
    "startup_trials": 3,
    "pruner": {"min_evaluations": 1, "reduction_factor": 3},
    "workers": 1,
    "space": "toy",
    "spaces": {
        "toy": {
            "learning_rate": {"low": 1.0e-3, "high": 1.0e-1, "log": True},
            "warmup_steps": {"low": 0, "high": 3, "log": False},
            "weight_decay": {"choices": [0.0, 0.01]},
            "batch": {"choices": [1, 2]},
            "accumulation": {"choices": [1, 2]},
            "rank": {"choices": [2, 4]},
            "alpha_per_rank": {"choices": [1.0, 2.0]},
        }
    },
}
POINT = {"learning_rate": 0.02, "warmup_steps": 1, "weight_decay": 0.0, "batch": 2, "accumulation": 1, "rank": 2}
OTHER = {"learning_rate": 0.5, "warmup_steps": 0, "weight_decay": 0.01, "batch": 1, "accumulation": 2, "rank": 4}


@pytest.fixture(scope="module")
def toy(toy_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"), toy_llama, tune=TUNE)


@pytest.fixture(scope="module")
def tuned(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a study whose search is done."""
    results = tmp_path_factory.mktemp("results")
    tune(study=toy.study, data_folder=toy.data, out=results / "tune")
    return results


def variant(study: Study, **changes: Any) -> Study:
    """The study with other keys in `tune`."""
    settings = study.yaml | {"tune": study.yaml["tune"] | changes}
    return Study(name=study.name, path=study.path, yaml=settings)


def run(runner: TrialRunner, point: dict, folder: Path, should_prune: Any = lambda part, loss: False) -> TrialResult:
    folder.mkdir(exist_ok=True)
    return runner.run(point, name="trial", folder=folder, stop=StopSignals(), clock=SessionClock(None), should_prune=should_prune)


def kept(result: TrialResult) -> dict[str, Any]:
    return {key: value for key, value in vars(result).items() if key != "seconds"}


def adapter_sums(monkeypatch: pytest.MonkeyPatch, runner: TrialRunner) -> list[str]:
    """Digests of the adapters that the runner takes off, in turn."""
    sums, release = [], runner.backend.release

    def spied(base: Any, model: Any) -> Any:
        weights = {n: p.detach().numpy().tobytes().hex() for n, p in model.named_parameters() if p.requires_grad}
        sums.append(sha256_json(weights))
        return release(base, model)

    monkeypatch.setattr(runner.backend, "release", spied)
    return sums


def test_a_trial_alone_and_after_others_are_the_same_bits(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, after = TrialRunner(toy.study, toy.data), TrialRunner(toy.study, toy.data)
    sums_alone, sums_after = adapter_sums(monkeypatch, alone), adapter_sums(monkeypatch, after)
    single = run(alone, POINT, tmp_path / "alone")
    base_before = None
    for number, (point, listen) in enumerate(
        [(OTHER, lambda part, loss: False), (OTHER, lambda part, loss: True), (POINT, lambda part, loss: False)]
    ):
        last = run(after, point, tmp_path / f"{number}", listen)
        weights = sha256_json([p.detach().numpy().tobytes().hex() for p in after._base.model.parameters()])
        base_before = base_before or weights
        assert weights == base_before, "a trial changed the base"
    assert kept(last) == kept(single) and single.outcome == "complete"
    assert sums_after[-1] == sums_alone[0] != sums_after[0]
    assert [row["loss"] for row in rows_of(tmp_path / "2")] == [row["loss"] for row in rows_of(tmp_path / "alone")]


def test_a_trial_is_the_grid_s_training(toy: Toy, tmp_path: Path) -> None:
    """A run trained by the train stage with a trial's settings and length has the trial's losses, bit for bit."""
    trial = run(TrialRunner(toy.study, toy.data), POINT, tmp_path / "trial")
    study = at_point(toy.study, POINT, budget=Budget(steps=trial.planned_steps))
    Toy(study=study, cell=study.cells[0], data=toy.data).train(tmp_path / "run")
    losses = [
        [
            (row["step"], row["loss"], row["tokens"], row["learning_rate"])
            for row in rows_of(tmp_path / name)
            if row["kind"] == "train"
        ]
        for name in ("trial", "run")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == trial.planned_steps
    assert {path.name for path in (tmp_path / "trial").iterdir()} == {"losses.csv"}, "a trial keeps no checkpoint"


def test_trials_see_equal_tokens_whatever_their_batch(toy: Toy, tmp_path: Path) -> None:
    runner = TrialRunner(toy.study, toy.data)
    small, large = (
        run(runner, POINT | {"batch": b, "accumulation": a}, tmp_path / f"{b}{a}") for b, a in ((1, 1), (2, 2))
    )
    assert small.planned_steps == pytest.approx(4 * large.planned_steps, abs=3)
    for result in (small, large):
        assert [part for part, *_ in result.curve] == [1, 2, 3]
        assert result.tokens == pytest.approx(600, rel=0.25)
    for one, other in zip(small.curve, large.curve):
        assert one[2] == pytest.approx(other[2], rel=0.35)


def test_a_trial_is_pruned_at_once(toy: Toy, tmp_path: Path) -> None:
    result = run(TrialRunner(toy.study, toy.data), POINT, tmp_path, lambda part, loss: part == 2)
    assert result.outcome == "pruned" and result.curve[-1][0] == 2
    assert result.steps == result.curve[-1][1] < result.planned_steps
    assert rows_of(tmp_path)[-1]["kind"] == "heldout"


def test_a_trial_that_diverges_or_runs_out_of_memory_harms_no_other(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    runner = TrialRunner(toy.study, toy.data)
    before = run(runner, POINT, tmp_path / "before")
    diverged = run(runner, OTHER | {"learning_rate": 1e30}, tmp_path / "diverged")
    assert diverged.outcome == "diverged" and "became" in diverged.reason
    real = runner.backend.trainer

    def hungry(*arguments: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(runner.backend, "trainer", hungry)
    hungered = run(runner, POINT, tmp_path / "memory")
    assert hungered.outcome == "out_of_memory" and hungered.loss is None and hungered.planned_steps is None
    monkeypatch.setattr(runner.backend, "trainer", lambda *a, **n: [][0])
    assert run(runner, POINT, tmp_path / "bug").reason == "IndexError: list index out of range"
    monkeypatch.setattr(runner.backend, "trainer", real)
    assert kept(run(runner, POINT, tmp_path / "after")) == kept(before)


def test_the_search_leaves_its_result_and_tables(toy: Toy, tuned: Path) -> None:
    result = json.loads((tuned / "tune" / "tune.json").read_text())
    rows = list(csv.DictReader(open(tuned / "tune" / "trials.csv")))
    assert [int(row["slot"]) for row in rows] == list(range(5)) and result["search"] == search_name(toy.study)
    assert set(TUNE["spaces"]["toy"]) < set(rows[0])
    assert sum(result["outcomes"].values()) == 5 and result["outcomes"]["complete"] >= 1
    complete = [row for row in result["rows"] if row["outcome"] == "complete"]
    assert result["best"]["loss"] == min(row["loss"] for row in complete)
    curves = list(csv.DictReader(open(tuned / "tune" / "curves.csv")))
    assert len(curves) == sum(len(row["curve"]) for row in result["rows"])
    assert not list((tuned / "tune").rglob("checkpoint*")), "no checkpoints are kept"


def test_the_winner_is_an_ordinary_study_of_one_run(toy: Toy, tuned: Path) -> None:
    result = json.loads((tuned / "tune" / "tune.json").read_text())
    study = load_study(str(tuned / "tune" / result["winner"]["study_file"]))
    (cell,) = study.cells
    assert study.name == toy.study.name and cell.run == result["winner"]["run"]
    assert cell.identity == cell_at(toy.study, result["best"]["point"]).identity
    training, point = study.yaml["training"], result["best"]["point"]
    assert training["budget"] == toy.study.yaml["training"]["budget"], "the winner trains at the grid's full budget"
    assert training["warmup_steps"] == point["warmup_steps"] and cell.learning_rate == point["learning_rate"]
    assert cell.identity["training"]["alpha"] == point["alpha_per_rank"] * point["rank"]
    found = winner_cell(toy.study, tuned)
    assert found.run == cell.run and found.departs == {"search": "winner"}
    assert winner_cell(variant(toy.study, enabled=False), tuned) is None
    assert winner_cell(variant(toy.study, seed=2), tuned) is None, "the winner of another search was taken"
    assert read_search(variant(toy.study, trials=50, workers=3), tuned) == result


def test_a_winner_that_the_grid_has_is_that_very_run(toy: Toy) -> None:
    case = toy.study.yaml["base_case"]
    same = {"learning_rate": case["learning_rate"], "rank": 4, "batch": 2, "accumulation": 2, "alpha_per_rank": 1.0}
    assert cell_at(toy.study, same | {"warmup_steps": 2, "weight_decay": 0.01}).run == toy.cell.run


def test_the_search_changes_no_identity_of_the_grid(toy: Toy) -> None:
    none = Study(name="toy", path=toy.study.path, yaml=toy.study.yaml | {"tune": None})
    assert [cell.run for cell in none.cells] == [cell.run for cell in toy.study.cells]


def test_another_setting_of_the_search_is_another_search_but_more_trials_are_not(toy: Toy) -> None:
    name = search_name(toy.study)
    assert name.startswith("toy-")
    for more in ({"trials": 50}, {"workers": 4}, {"enabled": False}):
        assert search_name(variant(toy.study, **more)) == name
    for other in (
        {"seed": 2},
        {"pruner": None},
        {"budget": {"tokens": 700}},
        {"evaluations": 4},
        {"heldout_rows": None},
    ):
        assert search_name(variant(toy.study, **other)) != name
    longer = toy.study.yaml | {"training": toy.study.yaml["training"] | {"budget": {"steps": 99}}}
    assert settings_sha256(Study(name="toy", path=toy.study.path, yaml=longer)) == settings_sha256(toy.study)


def test_a_finished_search_is_summed_up_again_without_loading_anything(
    toy: Toy, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((tuned / "tune" / "tune.json").read_text())
    monkeypatch.setattr(TrialRunner, "load", lambda self: pytest.fail("the base was loaded"))
    assert tune(study=toy.study, data_folder=toy.data, out=tuned / "tune")["rows"] == before["rows"]


def test_stopped_in_a_trial_the_command_pauses_and_goes_on(toy: Toy, tuned: Path, tmp_path: Path) -> None:
    """SIGTERM, then SIGKILL, then to the end: the same trials as in one go."""
    command = [sys.executable, str(ROOT / "scripts/tune.py"), "--study", str(toy.study.path)]
    command += ["--data", str(toy.data), "--out", str(tmp_path / "tune")]
    for number, (sent, status) in enumerate(((signal.SIGTERM, 75), (signal.SIGKILL, -9))):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
        trials = tmp_path / "tune" / "trials" / search_name(toy.study)
        deadline = time.monotonic() + 90
        while not (trials / f"{number + 1:04d}" / "losses.csv").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(sent)
        _, said = process.communicate()
        assert process.returncode == status, said
        assert "Traceback" not in said
    assert not (tmp_path / "tune" / "tune.json").exists()
    result = tune(study=toy.study, data_folder=toy.data, out=tmp_path / "tune")
    whole = json.loads((tuned / "tune" / "tune.json").read_text())
    for one, other in zip(result["rows"], whole["rows"]):
        assert {key: one[key] for key in ("point", "outcome", "curve")} == {
            key: json.loads(json.dumps(other[key])) for key in ("point", "outcome", "curve")
        }


def test_a_session_s_limit_pauses(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(Paused, match=r"paused after 0 of 5 trials \(paused: session_minutes\)"):
        tune(study=toy.study, data_folder=toy.data, out=tmp_path, session_ends=time.monotonic())


def test_a_diverged_trial_teaches_the_sampler(toy: Toy, tmp_path: Path) -> None:
    space = {"toy": TUNE["spaces"]["toy"] | {"learning_rate": {"choices": [1.0e9]}}}
    study = variant(toy.study, spaces=space, trials=1)
    search, runner = Search(tmp_path, name="x", tune=study.tune), TrialRunner(study, toy.data)
    with search.claim_next() as claim:
        run_trial(search, claim, runner, stop=StopSignals(), clock=SessionClock(None))
    (trial,) = search.trials()
    assert trial.user_attrs["outcome"] == "diverged" and trial.state.name == "PRUNED"


def test_a_user_s_mistake_is_one_line(toy: Toy, tmp_path: Path) -> None:
    none = Study(name="toy", path=toy.study.path, yaml=toy.study.yaml | {"tune": None})
    with pytest.raises(UserError, match=r"toy\.yaml: tune: null\. Fix: describe a search there"):
        tune(study=none, data_folder=toy.data, out=tmp_path)
    with pytest.raises(UserError, match="is missing"):
        tune(study=toy.study, data_folder=tmp_path / "absent", out=tmp_path / "out")


def test_held_out_rows_are_spread_evenly() -> None:
    assert evenly_spaced(10, 5) == [0, 2, 4, 6, 8] and evenly_spaced(3, None) == [0, 1, 2] == evenly_spaced(3, 7)


def test_a_full_disk_is_no_trial_s_fault(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TrlBackend, "trainer", full)
    with pytest.raises(Failed, match=r"the disk is full\. Fix: make room and run the same command again"):
        tune(study=toy.study, data_folder=toy.data, out=tmp_path)
    (trials, *others) = Search(tmp_path, name=search_name(toy.study), tune=toy.study.tune).by_slot()
    assert trials[0].user_attrs["outcome"] == "left: OSError" and not any(others)
