"""Two axes together: differences of differences by hand, and whether the best value is proved to move."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import compare as stage
from loragrid.comparing.designs.interactions import best_apart, movement
from tests.fixtures import synthetic, synthetic_designs


def compared(folder: Path, effect, **options):
    # With two seeds each setting has a chance of one in five to be judged by its own one degree of freedom.
    study = synthetic_designs.factorial_study(folder, seed=[1, 2, 3])
    synthetic.make_results(study, folder / "results", effect=effect, losses=False, **options)
    summary = stage.compare(study=study, results=folder / "results", out=folder / "results/compare")
    (pair,) = summary["interactions"]
    return study, pair


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("moving")
    return folder, *compared(folder, synthetic_designs.moving_rate, items=100)


def test_the_best_rate_that_moves_is_proved_to_move(moving) -> None:
    _, _, pair = moving
    assert (pair["rows_axis"], pair["columns_axis"]) == ("rank", "learning_rate")
    assert pair["rows"] == ["4", "16", "64"] and pair["columns"] == ["1e-3", "0.01", "0.1"]
    assert pair["base"] == ["16", "0.01"] and pair["seeds"] == 3
    # Four interactions and three pairs of columns in three rows, on each of six measures.
    assert pair["families"] == {"setting": {"target": 13, "retention": 13, "exploratory": 52}}
    loss = pair["tasks"]["heldout_loss"]
    assert loss["best"] == [2, 1, 0] and loss["movement"]["code"] == "moves"
    # The values that are outlined in the heat map.
    (row, better, worse), (other, there, here) = loss["movement"]["evidence"]
    assert (better, worse) == (here, there) and row != other
    assert loss["best"][pair["rows"].index(row)] == pair["columns"].index(better)
    assert pair["tasks"]["world_facts"]["movement"]["code"] == "open"


def test_an_interaction_is_a_difference_of_differences(moving) -> None:
    folder, study, pair = moving
    mean = {}
    for cell in study.cells:
        items = pd.read_parquet(folder / "results/score" / cell.run / "items.parquet")
        values = items[items["task"] == "running_plan"]["value"].to_numpy()
        mean.setdefault((cell.settings.rank, cell.settings.learning_rate), []).append(values)
    mean = {point: np.mean(values, axis=0) for point, values in mean.items()}
    by_hand = mean[64, 0.1] - mean[64, 0.01] - mean[16, 0.1] + mean[16, 0.01]
    contrasts = {(row["row"], row["column"]): row for row in pair["tasks"]["running_plan"]["contrasts"]}
    assert contrasts["64", "0.1"]["difference"] == pytest.approx(by_hand.mean())
    assert len(contrasts) == 4 and contrasts["4", "0.1"]["verdict"] == "better"


def test_one_best_rate_is_proved_to_stay(tmp_path: Path) -> None:
    _, pair = compared(tmp_path, synthetic_designs.fixed_rate, items=60)
    loss = pair["tasks"]["heldout_loss"]
    assert loss["movement"] == {"code": "stays", "best": "0.01"} and loss["best"] == [1, 1, 1]
    assert {row["verdict"] for row in loss["contrasts"]} == {"can't tell"}


def within(row: str, column: str, than: str, verdict: str) -> dict:
    return {"row": row, "column": column, "than": than, "verdict": verdict}


@pytest.mark.parametrize(
    "verdicts, code",
    [
        (("better", "worse"), "moves"),
        (("better", "better"), "stays"),
        (("worse", "worse"), "stays"),
        (("better", "can't tell"), "open"),
        (("can't tell", "can't tell"), "open"),
    ],
)
def test_movement(verdicts: tuple[str, str], code: str) -> None:
    tests = [within(row, "b", "a", verdict) for row, verdict in zip(("1", "2"), verdicts)]
    assert movement(tests, ["1", "2"], ["a", "b"], ["b", "a"])["code"] == code


def test_without_tests_nothing_is_said() -> None:
    assert movement([], ["1"], ["a"], [None]) == {"code": "not_tested"}


def test_no_effect_makes_no_claim(tmp_path: Path) -> None:
    same = {"target": 0.5, "retention": 0.7, "loss": 2.0}
    _, pair = compared(tmp_path, lambda cell: same, items=60)
    for scores in pair["tasks"].values():
        assert scores["movement"]["code"] == "open"
        assert all(row["verdict"] == "can't tell" for row in scores["contrasts"])


@pytest.mark.parametrize(
    "verdicts, apart",
    [
        (("better", "worse"), "setting"),
        (("better", "adapters differ"), "adapters"),
        (("adapters differ", "adapters differ"), "adapters"),
        (("better", "can't tell"), None),
        ((), None),
    ],
)
def test_how_far_the_best_of_a_row_is_apart(verdicts: tuple[str, ...], apart: str | None) -> None:
    """Against both other columns of its row; what they do among each other, or in another row, is no matter."""
    pairs = [("b", "a"), ("c", "b")]
    tests = [within("1", column, than, verdict) for (column, than), verdict in zip(pairs, verdicts)]
    others = [within("1", "c", "a", "can't tell"), within("2", "b", "a", "can't tell")]
    assert best_apart(tests + others, "1", "b") == apart


def test_a_missing_run_leaves_a_gap(tmp_path: Path) -> None:
    study = synthetic_designs.factorial_study(tmp_path, seed=[1])
    gone = next(c.run for c in study.cells if (c.settings.rank, c.settings.learning_rate) == (64, 0.1))
    synthetic.make_results(study, tmp_path / "results", items=30, losses=False, faults={gone: "missing"})
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "out")
    (pair,) = summary["interactions"]
    scores = pair["tasks"]["running_plan"]
    assert scores["scores"][2][2] is None and scores["best"][2] is None and len(scores["contrasts"]) == 3
    assert pair["seeds"] == 1


def test_a_one_factor_study_has_no_pair_of_axes(made) -> None:
    assert made[2]["interactions"] == [] and made[2]["learning_curves"] == [] and made[2]["along"] == []
