"""The `tune` section of a study file: its mistakes, its distributions and its coordinates."""

import copy
from pathlib import Path

import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.search_space import PARAMETERS, coordinate, distance, distributions, rounded_point, searched_space
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
            "learning_rate: not above 0 (0). Fix: give values above 0.",
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
        ("tune.spaces.original.batch", {"choices": [0, 1]}, "batch: not above 0 (0)"),
        ("tune.spaces.original.batch", {"choices": [1.5]}, "tune.spaces.original.batch"),
        ("tune.spaces.original.dropout", {"choices": [0.1]}, "tune.spaces.original.dropout: unknown key"),
        ("tune.spaces.original", {}, "tune.spaces.original: empty"),
        ("tune.pruner.min_evaluations", 50, "more than the 9 evaluations of a trial (50). Fix: lower it to 9 or less."),
        ("tune.pruner.reduction_factor", 1, "tune.pruner.reduction_factor: below the minimum of 2 (1)"),
        ("tune.trials", 0, "tune.trials: below the minimum of 1 (0)"),
        ("tune.objective", "accuracy", "tune.objective: not an allowed value ('accuracy')"),
        ("tune", {"enabled": False}, "tune.trials: missing. Fix: add it as described in config/README.md."),
    ],
)
def test_a_bad_key_is_named_with_its_fix(load, key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(key, value)
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine.yaml: ") and "\n" not in str(caught.value)


def test_a_study_may_have_no_search_and_no_pruner(load) -> None:
    assert load("tune", None).yaml["tune"] is None
    assert load("tune.pruner", None).yaml["tune"]["pruner"] is None


def test_the_order_of_the_file_does_not_matter() -> None:
    tune = Tune.read(search_toys.TUNE | {"spaces": {"toy": dict(reversed(SPACE.items()))}})
    assert list(searched_space(tune)) == [name for name in PARAMETERS if name in SPACE]


def test_values_as_distributions() -> None:
    found = distributions(SPACE)
    assert found["learning_rate"] == FloatDistribution(1e-5, 1.0, log=True)
    assert found["warmup_steps"] == IntDistribution(0, 10)
    assert found["rank"] == CategoricalDistribution([4, 16, 64])


def test_drawn_reals_are_rounded_within_their_range() -> None:
    space = {"learning_rate": {"low": 1.2345e-5, "high": 0.98765, "log": True}, "rank": {"choices": [4]}}
    assert rounded_point({"learning_rate": 0.0123456, "rank": 4}, space) == {"learning_rate": 0.0123, "rank": 4}
    assert rounded_point({"learning_rate": 0.98764}, space) == {"learning_rate": 0.98765}
    assert rounded_point({"learning_rate": 1.2345e-5}, space) == {"learning_rate": 1.2345e-5}


def test_coordinates_and_distance() -> None:
    assert coordinate(SPACE["learning_rate"], 10**-2.5) == pytest.approx(0.5)
    assert [coordinate(SPACE["rank"], rank) for rank in (4, 16, 64)] == [0, 0.5, 1]
    assert coordinate({"choices": [7]}, 7) == 0.5 == coordinate({"low": 3, "high": 3, "log": False}, 3)
    low = {"learning_rate": 1e-5, "warmup_steps": 0, "rank": 4}
    high = {"learning_rate": 1.0, "warmup_steps": 10, "rank": 64}
    assert distance(SPACE, low, low) == 0 and distance(SPACE, low, high) == pytest.approx(1)
