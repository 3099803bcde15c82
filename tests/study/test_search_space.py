"""The `tune` section of a study file: its mistakes, its distributions and its coordinates."""

import copy
from pathlib import Path

import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.completion import setting_names
from loragrid.study.search.search_point import at_point
from loragrid.study.search.search_space import (
    coordinate,
    decoded,
    distance,
    distributions,
    encoded,
    ordered_choices,
    point_in,
    searched_space,
    settings_at,
)
from loragrid.study.sections import Tune
from loragrid.study.study_file import load_study
from tests.fixtures import search_toys

SPACE = search_toys.TUNE["spaces"]["toy"]


@pytest.fixture
def load(tmp_path: Path):
    def load(path: str, value: object):
        settings = yaml.safe_load((ROOT / "config/studies/t4.yaml").read_text())
        *parents, last = path.split(".")
        node = settings
        for part in parents:
            node = node[part]
        node[last] = copy.deepcopy(value)
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(settings, sort_keys=False))
        return load_study(str(file))

    return load


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tune.space", "wide", "tune.space: not a key of tune.spaces ('wide'). Fix: use one of original, recommended."),
        (
            "tune.spaces.original.learning_rate",
            {"low": 0, "high": 1.0, "log": True},
            "learning_rate.low: not above 0 (0). Fix: give a number above 0.",
        ),
        (
            "tune.spaces.original.weight_decay",
            {"low": 0, "high": 1.0, "log": True},
            "weight_decay: a log range that starts at 0 (low: 0)",
        ),
        (
            "tune.spaces.original.rank",
            {"low": 8, "high": 4, "log": False},
            "rank: low is above high (8 > 4). Fix: swap them.",
        ),
        ("tune.spaces.original.rank", {"choices": [8, 8]}, "tune.spaces.original.rank"),
        ("tune.spaces.original.batch", {"choices": [[0, 1]]}, "batch.choices[0][0]: below the minimum of 1 (0)"),
        ("tune.spaces.original.batch", {"choices": [2]}, "batch.choices[0]: not a list (2)"),
        ("tune.spaces.original.batch", {"low": 1, "high": 2}, "tune.spaces.original.batch"),
        ("tune.spaces.original.dropuot", {"choices": [0.1]}, "tune.spaces.original.dropuot: unknown key"),
        ("tune.spaces.original.precision", {"choices": ["4bit"]}, "tune.spaces.original.precision: unknown key"),
        (
            "tune.spaces.original.method",
            {"choices": ["lora", "pissa"]},
            "original.method: trials of a search share a base, which this method does not leave as it was (pissa). "
            "Fix: use one of lora, rslora, lora_plus, dora, loftq, vera, ia3, ",
        ),
        ("tune.spaces.original.method", {"choices": ["full"]}, "this method does not leave as it was (full)"),
        ("tune.spaces.original.method", {"choices": ["none"]}, "this method does not leave as it was (none)"),
        (
            "tune.spaces.recommended.method",
            {"choices": ["ia3"]},
            "recommended.rank: no method of the space has this setting; it has ia3. Fix: remove rank.",
        ),
        (
            "tune.spaces.original.learning_rate_ratio",
            {"choices": [4, 16]},
            "learning_rate_ratio: no method of the space has this setting; it has lora. Fix: remove",
        ),
        (
            "tune.spaces.recommended.alpha",
            {"choices": ["rank * rank + 1"]},
            "tune.spaces.recommended: alpha: not an expression of the rank",
        ),
        (
            "tune.spaces.original.learning_rate",
            {"choices": ["0 * rank"]},
            "tune.spaces.original: learning_rate: not above 0 (0 * rank is 0)",
        ),
        (
            "tune.objective",
            "hellaswga:acc",
            "tune.objective: not a task of scoring ('hellaswga'). Fix: use one of validation_loss, ifeval:METRIC, ",
        ),
        (
            "tune.objective",
            "heldout_loss:perplexity",
            "a metric of the held-out rows, which no search may use (heldout_loss:perplexity). Fix: write",
        ),
        ("tune.sampler", "cmaes", "tune.sampler: not an allowed value ('cmaes'). Fix: use one of tpe, random, gp"),
        ("tune.spaces.original", {}, "tune.spaces.original: empty"),
        (
            "tune.pruner",
            {"min_evaluations": 50, "reduction_factor": 3},
            "more than the 9 evaluations of a trial (50). Fix: lower it to 9 or less.",
        ),
        (
            "tune.pruner",
            {"min_evaluations": 1, "reduction_factor": 1},
            "tune.pruner.reduction_factor: below the minimum of 2 (1)",
        ),
        ("tune.trials", 0, "tune.trials: below the minimum of 1 (0)"),
        ("tune.objective", "accuracy", "tune.objective: not in the right form ("),
        ("tune", {"enabled": False}, "tune.budget: missing. Fix: add it as described in config/README.md."),
    ],
)
def test_a_bad_key_is_named_with_its_fix(load, key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(key, value)
    assert message in str(caught.value)
    assert all(line.startswith("mine.yaml: tune") for line in str(caught.value).splitlines())


def test_a_space_may_have_settings_that_the_base_case_s_method_lacks(load) -> None:
    ratio = {"method": {"choices": ["lora", "lora_plus"]}, "learning_rate_ratio": {"low": 2, "high": 16}}
    for space in (ratio, {"method": {"choices": ["lora_plus", "lora"]}}):
        study = load("tune.spaces.original", space)
        trial = at_point(study, {"method": "lora_plus"}).cells[0]
        assert trial.settings.learning_rate_ratio == 16 and set(study.tune.spaces["original"]) == set(space)


def test_a_study_may_have_no_search_and_no_pruner(load) -> None:
    assert load("tune", None).yaml["tune"] is None
    assert load("tune.pruner", None).yaml["tune"]["pruner"] is None


def test_the_order_of_the_file_does_not_matter() -> None:
    tune = Tune.read(search_toys.TUNE | {"spaces": {"toy": dict(reversed(SPACE.items()))}})
    assert list(searched_space(tune)) == [name for name in setting_names() if name in SPACE]


def test_values_as_distributions() -> None:
    found = distributions(SPACE)
    assert found["learning_rate"] == FloatDistribution(1e-5, 1.0, log=True)
    assert found["weight_decay"] == IntDistribution(0, 10)
    assert found["rank"] == CategoricalDistribution([4, 16, 64])


def test_drawn_reals_are_rounded_within_their_range() -> None:
    space = {"learning_rate": {"low": 1.2345e-5, "high": 0.98765, "log": True}, "rank": {"choices": [4]}}
    assert decoded({"learning_rate": 0.0123456, "rank": 4}, space) == {"learning_rate": 0.0123, "rank": 4}
    assert decoded({"learning_rate": 0.98764}, space) == {"learning_rate": 0.98765}
    assert decoded({"learning_rate": 1.2345e-5}, space) == {"learning_rate": 1.2345e-5}


def test_coordinates_and_distance() -> None:
    assert coordinate(SPACE["learning_rate"], 10**-2.5) == pytest.approx(0.5)
    assert [coordinate(SPACE["rank"], rank) for rank in (4, 16, 64)] == [0, 0.5, 1]
    assert coordinate({"choices": [7]}, 7) == 0.5 == coordinate({"low": 3, "high": 3, "log": False}, 3)
    low = {"learning_rate": 1e-5, "weight_decay": 0, "rank": 4}
    high = {"learning_rate": 1.0, "weight_decay": 10, "rank": 64}
    assert distance(SPACE, low, low) == 0 and distance(SPACE, low, high) == pytest.approx(1)


def test_a_setting_that_only_one_trial_has_is_a_whole_axis_away() -> None:
    one = {"learning_rate": 1e-3, "weight_decay": 0}
    assert distance(SPACE, one, one) == 0
    assert distance(SPACE, one, one | {"rank": 4}) == pytest.approx((1 / 3) ** 0.5)


def test_choices_are_ordered_by_size_where_they_have_one() -> None:
    assert ordered_choices({"choices": [16, 4.0]}) == [4.0, 16]
    assert ordered_choices({"choices": [[4, 4], [8, 1], [1, 2]]}) == [[1, 2], [8, 1], [4, 4]]
    words = ["2 * rank", "rank"]
    assert ordered_choices({"choices": words}) == words
    assert coordinate({"choices": [{"steps": 5}, {"ratio": 0.1}]}, {"ratio": 0.1}) == 1


def test_any_choice_survives_the_journal() -> None:
    space = {
        "batch": {"choices": [[2, 4], [4, 8]]},
        "warmup": {"choices": [{"steps": 5}, {"ratio": 0.1}]},
        "alpha": {"choices": ["2 * rank", 16]},
        "packing": {"choices": [True, False]},
        "target_modules": {"choices": ["attention", ["q_proj", "v_proj"]]},
    }
    for name, values in space.items():
        for choice in values["choices"]:
            stored = distributions(space)[name].to_external_repr(
                distributions(space)[name].to_internal_repr(encoded(choice))
            )
            assert decoded({name: stored}, space) == {name: choice}


def test_a_trial_has_the_settings_of_its_method() -> None:
    space = {name: {} for name in ("method", "learning_rate", "rank", "alpha", "learning_rate_ratio", "batch")}
    assert settings_at(space, "lora") == ["method", "learning_rate", "rank", "alpha", "batch"]
    assert settings_at(space, "vera") == ["method", "learning_rate", "rank", "batch"]
    assert settings_at(space, "ia3") == ["method", "learning_rate", "batch"]
    assert "learning_rate_ratio" in settings_at(space, "lora_plus")


def test_the_point_of_a_run() -> None:
    space = {
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "rank": {"choices": [4, 16]},
        "alpha": {"choices": ["rank", "2 * rank"]},
        "warmup": {"choices": [{"steps": 0}, {"ratio": 0.1}]},
    }
    run = {"learning_rate": 0.01, "rank": 4, "alpha": 8, "warmup": {"ratio": 0.1}}
    point = {"learning_rate": 0.01, "rank": 4, "alpha": "2 * rank", "warmup": {"ratio": 0.1}}
    assert point_in(space, run) == point
    assert point_in(space, run | {"rank": 64}) is None and point_in(space, run | {"learning_rate": 1}) is None
    assert point_in(space, run | {"alpha": 5}) is None
    without = run | {"rank": None, "alpha": None}
    assert point_in(space, without) == {"learning_rate": 0.01, "warmup": {"ratio": 0.1}}


def test_an_objective_may_name_a_task_file_beside_the_study(load, tmp_path: Path) -> None:
    (tmp_path / "mine.task.yaml").write_text("task: mine\n")
    settings = yaml.safe_load((ROOT / "config/studies/t4.yaml").read_text())
    settings["scoring"]["target"].append("mine.task.yaml")
    settings["tune"]["objective"] = "mine.task.yaml:acc"
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(settings))
    tune = load_study(str(file)).tune
    assert (tune.task, tune.metric) == (str(tmp_path / "mine.task.yaml"), "acc")
