"""The result of a search: its summary, the importance of parameters, and pruning in Hyperband's brackets."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from loragrid.searching import search_result
from loragrid.searching.hyperband_brackets import bracket_order, make_pruner
from loragrid.searching.search import Search
from loragrid.searching.search_result import importance, summarise_trials, trial_rows
from loragrid.study.sections import Tune
from tests.fixtures import search_toys
from tests.fixtures.search_toys import TUNE


def test_pruning_saves_steps_and_keeps_the_best(searched: Search) -> None:
    rows = trial_rows(searched)
    found = summarise_trials(rows, searched.space)
    assert found["steps_saved"] >= 0.4
    assert found["steps"] == sum(row["steps"] for row in rows) and found["steps_in_full"] == 18 * len(rows)
    full = {row["slot"]: search_toys.loss(row["point"], 9) for row in rows}
    assert found["best"]["slot"] == min(full, key=full.get)
    assert full[found["best"]["slot"]] == found["best"]["loss"]
    assert found["best"]["measured"] == len(rows) and found["best"]["place_at_first"] >= 1
    neighbours = found["best"]["neighbours"]
    assert [n["distance"] for n in neighbours] == sorted(n["distance"] for n in neighbours) and len(neighbours) == 3
    assert all(n["best_loss_there"] <= n["loss"] for n in neighbours)


def test_how_many_trials_were_modelled_is_counted(searched: Search) -> None:
    rows = trial_rows(searched)
    relative = {t.number for t in searched.trials() if any(k.startswith("tpe:") for k in t.system_attrs)}
    assert {row["number"] for row in rows if row["modelled"]} == relative
    assert len(relative) == len(rows) - TUNE["startup_trials"]


def test_without_a_pruner_every_trial_runs_to_its_end(tmp_path: Path) -> None:
    search = search_toys.work(tmp_path, tune=TUNE | {"pruner": None, "trials": 6})
    found = summarise_trials(trial_rows(search), search.space)
    assert found["outcomes"] == {"complete": 6} and found["steps_saved"] == 0 and found["modelled"] == 2


def test_importance_is_reproducible_and_none_with_too_few_trials(tmp_path: Path) -> None:
    # Ten trials that a sampler led to the optimum are too few: there it may name another setting.
    everywhere = {"trials": 40, "sampler": "random", "pruner": None}
    drawn = search_toys.work(tmp_path / "many", tune=TUNE | everywhere)
    found = importance(drawn)
    assert found == importance(drawn)
    assert next(iter(found["shares"])) == "learning_rate" and sum(found["shares"].values()) == pytest.approx(1)
    assert found["at"] == "end" and found["left_out"] == []
    few = search_toys.work(tmp_path / "few", tune=TUNE | {"trials": 2})
    assert importance(few) == {"at": "first", "trials": 2, "shares": None, "left_out": []}


def test_importance_uses_first_losses_if_too_few_trials_are_complete(
    searched: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_result, "MIN_TRIALS", 15)
    rows = trial_rows(searched)
    found, shown = summarise_trials(rows, searched.space), importance(searched)
    assert 0 < found["outcomes"]["complete"] < 15 and found["median_complete_value"] is None
    assert (shown["at"], shown["trials"]) == ("first", 24) and next(iter(shown["shares"])) == "learning_rate"
    first = sorted(search_toys.loss(row["point"], 1) for row in rows)
    assert found["median_first_loss"] == pytest.approx((first[11] + first[12]) / 2)


def test_brackets_take_turns_in_their_shares() -> None:
    order = bracket_order([9, 5, 3])
    assert [order.count(i) for i in range(3)] == [9, 5, 3]
    assert order[:4] == [0, 1, 0, 2]
    pruner = make_pruner(Tune.read(TUNE))
    assert len(pruner._pruners) == 3
    assert [pruner.bracket(slot) for slot in range(17)] == order == [pruner.bracket(slot) for slot in range(17, 34)]


def test_pruning_decisions_are_optuna_s_own(searched: Search) -> None:
    """Each bracket, replayed alone through Optuna's successive halving, prunes the same trials at the same place."""
    for bracket in range(3):
        rows = [row for row in trial_rows(searched) if row["bracket"] == bracket]
        halving = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=1, reduction_factor=3, min_early_stopping_rate=bracket
        )
        study = optuna.create_study(pruner=halving)
        for row in rows:
            trial = study.ask()
            last = replay(trial, row["point"])
            assert last == row["curve"][-1][0]
            study.tell(trial, search_toys.loss(row["point"], last))


def replay(trial: optuna.Trial, point: dict[str, Any]) -> int:
    for part in range(1, 10):
        trial.report(search_toys.loss(point, part), part)
        if part < 9 and trial.should_prune():
            return part
    return 9
