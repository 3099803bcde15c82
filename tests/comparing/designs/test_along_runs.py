"""Along runs: changes from the base, where the target stops improving, and where retention begins to fall."""

from pathlib import Path

import pandas as pd
import pytest

import compare as stage
from tests.fixtures import synthetic, synthetic_designs

# Two settings are too few to share their seeds' spread, so each needs several seeds.
FOUR_SEEDS = {"axes": synthetic_designs.NO_AXES | {"learning_rate": [0.01, 0.1], "seed": [1, 2, 3, 4]}}


def compared(folder: Path, **options):
    study = synthetic_designs.along_study(folder, grid=FOUR_SEEDS)
    synthetic.make_results(study, folder / "results", losses=False, **options)
    summary = stage.compare(study=study, results=folder / "results", out=folder / "out")
    return study, {row["run"]: row for row in summary["along"]}


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory):
    """All of the gain in the first quarter; forgetting, at the high rate, after it."""
    folder = tmp_path_factory.mktemp("early")
    return folder, *compared(folder, path=synthetic_designs.early_gain, items=800)


def test_the_high_rate_stops_and_forgets(early) -> None:
    _, study, along = early
    high = next(cell.run for cell in study.cells if cell.settings.learning_rate == 0.1)
    row = along[high]
    assert [moment["share"] for moment in row["moments"]] == [0, 0.125, 0.25, 0.5, 1.0] and row["seeds"] == 4
    assert row["target"]["code"] == "stopped" and row["target"]["share"] == 0.25
    assert row["target"]["most"] <= row["target"]["margin"] == 0.05
    assert (row["retention"]["code"], row["retention"]["share"], row["retention"]["before"]) == ("falls", 0.5, 0.25)
    assert row["retention"]["lost"][2] < 0


def test_changes_are_from_the_base_on_the_same_items(early) -> None:
    folder, study, along = early
    case = [cell for cell in study.cells if not cell.arm]

    def mean(subject: str) -> float:
        items = pd.read_parquet(folder / "results/score" / subject / "items.parquet")
        return items[items["task"] == "running_plan"]["value"].mean()

    by_hand = sum(mean(f"{cell.run}@0.25") for cell in case) / 4 - mean(case[0].base)
    moment = along[case[0].run]["moments"][2]
    assert moment["target"][0] == pytest.approx(by_hand) and moment["target"][1] < by_hand < moment["target"][2]
    tokens = along[case[0].run]["moments"][-1]["tokens"]
    assert moment["tokens"] == pytest.approx(tokens / 4)
    scores = pd.read_csv(folder / "out/scores.csv")
    assert f"{case[0].run}@0.5" in set(scores["subject"])
    runs = pd.read_csv(folder / "out/runs.csv")
    assert not runs["subject"].str.contains("@").any()  # the part of a run is no run


def test_a_steady_gain_still_improves_at_the_end(tmp_path: Path) -> None:
    _, along = compared(tmp_path, items=200)
    case = next(iter(along.values()))
    assert case["target"]["code"] == "improving" and case["target"]["share"] == 0.5
    assert case["target"]["gained"][1] > 0


def test_a_peak_on_the_way_is_found(tmp_path: Path) -> None:
    def peak(start: dict, end: dict, share: float) -> dict:
        return end | {"target": 0.95 if share == 0.5 else 0.3}

    _, along = compared(tmp_path, path=peak, items=100)
    case = next(iter(along.values()))
    assert case["target"]["code"] == "turned" and case["target"]["share"] == 0.5


def test_no_gain_and_no_loss(tmp_path: Path) -> None:
    same = {"target": 0.5, "retention": 0.9, "loss": 2.0}
    _, along = compared(tmp_path, effect=lambda cell: same, items=40)
    assert {row["target"]["code"] for row in along.values()} == {"no_gain"}
    assert {row["retention"]["code"] for row in along.values()} <= {"open", "kept"}


def test_one_seed_has_the_path_of_that_run_alone(tmp_path: Path) -> None:
    axes = synthetic_designs.NO_AXES | {"learning_rate": [0.01, 0.1], "seed": [1]}
    study = synthetic_designs.along_study(tmp_path, grid={"axes": axes})
    path = synthetic_designs.early_gain
    synthetic.make_results(study, tmp_path / "results", losses=False, path=path, items=800)
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "out")
    high = next(row for row in summary["along"] if "lr0.1" in row["run"])
    assert high["level"] == "adapters" and (high["target"]["code"], high["target"]["share"]) == ("stopped", 0.25)
    assert high["retention"]["code"] == "falls"
