"""Learning curves over data sizes: the power law by a second method, and where it is not fitted."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import compare as stage
from loragrid.comparing.designs.learning_curves import Size, equal_tokens, power_law
from tests.fixtures import synthetic, synthetic_designs

ROWS = np.repeat([250.0, 500.0, 1000.0, 2000.0, 4000.0], 4)


def compared(folder: Path, **options):
    study = synthetic_designs.sizes_study(folder, **options)
    effect = synthetic_designs.learning
    synthetic.make_results(study, folder / "results", effect=effect, items=40, losses=False)
    return stage.compare(study=study, results=folder / "results", out=folder / "out")["learning_curves"]


def test_three_sizes_with_two_seeds_have_a_law(tmp_path: Path) -> None:
    (curve,) = compared(tmp_path)
    assert (
        curve["data"] == ["few", "some", "many"] and curve["rows"] == [250, 750, 2250] and curve["seeds"] == [2, 2, 2]
    )
    assert curve["equal_tokens"] and len(set(curve["tokens"])) == 1
    assert [point["value"] for point in curve["tasks"]["heldout_loss"]] == sorted(
        (point["value"] for point in curve["tasks"]["heldout_loss"]), reverse=True
    )
    assert curve["tasks"]["running_plan"][2]["low"] < curve["tasks"]["running_plan"][2]["high"]
    fit = curve["fit"]
    assert fit["code"] == "fitted" and fit["df"] == 3 and len(curve["losses"]) == 6
    assert fit["c"][0] == pytest.approx(0.7, abs=0.01) and fit["c"][1] < 0.7 < fit["c"][2]
    assert fit["at_double"][1] < 1 + 40 * 4500**-0.7 < fit["at_double"][2]


@pytest.mark.parametrize(("steps", "equal"), [(19, True), (18, False)])
def test_sizes_may_differ_by_one_update(steps: int, equal: bool) -> None:
    """A run ends with a whole update, and one of twenty is 5 % of a budget."""
    records = [SimpleNamespace(tokens=5_000 * count, steps=count) for count in (20, steps)]
    sizes = [Size("data", 100.0, [SimpleNamespace(record=record)]) for record in records]
    assert equal_tokens(sizes) is equal


@pytest.mark.parametrize(
    "options, code", [({"seeds": (1,)}, "too_few_seeds"), ({"names": ("few", "many")}, "too_few_sizes")]
)
def test_fewer_have_a_curve_and_no_law(tmp_path: Path, options: dict, code: str) -> None:
    (curve,) = compared(tmp_path, **options)
    assert curve["fit"] == {"code": code}


def test_the_interval_covers_the_exponent_as_often_as_it_says() -> None:
    rng, covered, tries = np.random.default_rng(0), 0, 200
    truth = 0.9 + 30 * ROWS**-0.6
    for _ in range(tries):
        fit = power_law(np.stack([ROWS, truth + 0.01 * rng.standard_normal(len(ROWS))]), confidence=0.95)
        covered += fit["code"] == "fitted" and fit["c"][1] < 0.6 < fit["c"][2]
    assert 0.90 * tries <= covered <= tries


@pytest.mark.parametrize("losses", [2 + 0.0001 * ROWS, np.full(len(ROWS), 1.5)])
def test_a_loss_that_does_not_fall_has_no_law(losses: np.ndarray) -> None:
    noise = 1e-3 * np.random.default_rng(1).standard_normal(len(ROWS))
    fit = power_law(np.stack([ROWS, losses + noise]), confidence=0.95)
    # Of a flat loss some exponent may fit, but its interval then has no fall in it.
    assert fit["code"] == "no_power_law" or fit["b"][1] <= 0 or fit["c"][1] <= 0
