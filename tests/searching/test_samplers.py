"""Every sampler repeats a search exactly, in either direction, and draws only what a method has."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loragrid.searching.result_files import _flat
from loragrid.searching.samplers import is_drawn
from loragrid.searching.search import Search
from loragrid.searching.search_result import importance, summarise_trials, trial_rows
from loragrid.study.search.search_space import decoded
from loragrid.study.sections import Tune
from tests.fixtures import search_toys
from tests.fixtures.search_toys import METHODS, TUNE, comparable_rows


@pytest.mark.parametrize("sampler", ["random", "gp"])
def test_a_search_by_any_sampler_is_the_same_again(sampler: str, tmp_path: Path) -> None:
    tune = TUNE | {"sampler": sampler, "trials": 8, "pruner": None}
    one, other = (search_toys.work(tmp_path / name, tune=tune) for name in ("one", "other"))
    assert comparable_rows(one) == comparable_rows(other)
    modelled = [row["modelled"] for row in trial_rows(one)]
    assert modelled == [False] * 4 + [sampler == "gp"] * 4
    # The same seeds draw the first trials of every sampler.
    tpe = search_toys.work(tmp_path / "tpe", tune=tune | {"sampler": "tpe", "trials": 4})
    assert [row["point"] for row in trial_rows(one)[:4]] == [row["point"] for row in trial_rows(tpe)]


def test_a_model_of_the_space_is_better_than_chance(tmp_path: Path) -> None:
    found = {}
    for sampler in ("random", "gp"):
        search = search_toys.work(tmp_path / sampler, tune=TUNE | {"sampler": sampler, "trials": 16, "pruner": None})
        found[sampler] = summarise_trials(trial_rows(search), search.space)["best"]["loss"]
    assert found["gp"] < found["random"]


def test_an_objective_to_be_as_high_as_possible_makes_the_mirrored_search(searched: Search, tmp_path: Path) -> None:
    """Values and measurements change their signs, so that every choice of sampler and pruner stays the same."""
    search = Search(tmp_path, name="toy", tune=Tune.read(TUNE), higher_is_better=True)
    while search.settled() < TUNE["trials"]:
        with search.claim_next() as claim:
            search_toys.train(search, claim)
    assert comparable_rows(search) == comparable_rows(searched)
    best = summarise_trials(trial_rows(search), search.space, higher_is_better=True)["best"]
    lowest = summarise_trials(trial_rows(searched), searched.space)["best"]
    assert best["slot"] == lowest["slot"] and best["value"] == -lowest["value"] and best["loss"] == lowest["loss"]
    assert search._study.direction.name == "MAXIMIZE" and search._study.best_value == best["value"]


def test_a_trial_draws_what_its_method_has(tmp_path: Path) -> None:
    search = search_toys.work(tmp_path, tune=METHODS)
    rows = trial_rows(search)
    points = {row["point"]["method"]: row["point"] for row in rows}
    assert points["lora"].keys() == {"method", "learning_rate", "rank", "alpha", "weight_decay"}
    assert points["vera"].keys() == {"method", "learning_rate", "rank", "weight_decay"}
    assert points["ia3"].keys() == {"method", "learning_rate", "weight_decay"}
    assert sum(row["modelled"] for row in rows) == TUNE["trials"] - TUNE["startup_trials"]
    found = importance(search)
    assert set(found["left_out"]) == {"rank", "alpha"} and set(found["shares"]) == {
        "method",
        "learning_rate",
        "weight_decay",
    }
    summary = summarise_trials(rows, search.space)
    assert all(0 <= near["distance"] <= 1 for near in summary["best"]["neighbours"])


def test_a_base_case_without_a_rank_draws_none(tmp_path: Path) -> None:
    search = Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 1}), method="ia3")
    with search.claim_next() as claim:
        assert claim.point.keys() == {"learning_rate", "weight_decay"}


def test_a_trial_is_drawn_once_it_has_the_settings_of_its_method() -> None:
    space = METHODS["spaces"]["toy"]
    assert not is_drawn({}, space, "lora") and not is_drawn({"method": "ia3"}, space, "lora")
    assert is_drawn({"method": "ia3", "learning_rate": 0.1, "weight_decay": 1}, space, "lora")
    assert not is_drawn({"method": "vera", "learning_rate": 0.1, "weight_decay": 1}, space, "lora")


def test_killed_and_resumed_a_search_over_methods_is_the_same(tmp_path: Path) -> None:
    whole = search_toys.work(tmp_path / "whole", tune=METHODS)
    folder, rng, lines, kills = tmp_path / "killed", random.Random(3), 0, 0
    folder.mkdir()
    command = [sys.executable, search_toys.__file__, str(folder), "0.002", "methods"]
    while True:
        worker = subprocess.Popen(command)
        lines += rng.randint(60, 120)
        journal = folder / "journal.log"
        while worker.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < lines):
            time.sleep(0.0005)
        if worker.poll() is not None:
            break
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        kills += 1
    assert worker.returncode == 0 and kills >= 2
    search = Search(folder, name="toy", tune=Tune.read(METHODS))
    assert comparable_rows(search) == comparable_rows(whole)
    drawn = [decoded(trials[-1].params, search.space) for trials in search.by_slot()]
    assert drawn == [row["point"] for row in trial_rows(whole)]


def test_the_table_has_a_column_for_every_setting() -> None:
    short = {"slot": 0, "point": {"batch": [2, 4]}, "curve": []}
    assert _flat(short, {"rank": {}, "batch": {}}) == {"slot": 0, "rank": None, "batch": "[2, 4]"}
