"""Published findings against cells that agree, disagree, leave it open, or are not there."""

from pathlib import Path

import pandas as pd
import pytest

import compare
import synthetic
from study.errors import UserError
from study.scorecard import LITERATURE, scorecard


def axis_row(axis: str, value: str, base: str, difference: float, half: float, verdict: str) -> dict:
    bounds = {"low": difference - half, "high": difference + half}
    row = {
        "axis": axis,
        "value": value,
        "base_case_value": base,
        "task": "t",
        "difference": difference,
        "token_ratio": 1.0,
    }
    return row | bounds | {"verdict": verdict}


def result(rows: list[dict], claim: str, **options) -> tuple[str, str]:
    axes = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["axis", "task", "verdict"])
    found = scorecard(axes, options.get("outcomes", []), options.get("controls", []), "t", "share")
    row = next(row for row in found if claim in row["claim"])
    return row["result"], row["why"]


@pytest.mark.parametrize(
    "difference, half, verdict, wanted",
    [(0.01, 0.03, "can't tell", "agrees"), (0.2, 0.1, "better", "disagrees"), (0.01, 0.2, "can't tell", "can't tell")],
)
def test_no_difference_proved_is_not_no_difference(difference, half, verdict, wanted) -> None:
    assert result([axis_row("rank", "64", "16", difference, half, verdict)], "Rank matters little")[0] == wanted


@pytest.mark.parametrize(
    "value, verdict, wanted",
    [
        ("4×8", "worse", "agrees"),
        ("4×8", "better", "disagrees"),
        ("1×1", "better", "agrees"),
        ("4×8", "can't tell", "can't tell"),
    ],
)
def test_larger_batches(value: str, verdict: str, wanted: str) -> None:
    assert result([axis_row("batch", value, "2×4", -0.2, 0.1, verdict)], "Larger batches")[0] == wanted


def test_unequal_tokens_decide_nothing() -> None:
    row = axis_row("batch", "4×8", "2×4", -0.2, 0.1, "worse") | {"token_ratio": 4.0}
    assert result([row], "Larger batches")[0] == "can't tell"


def test_what_the_grid_does_not_hold_is_not_tested() -> None:
    for claim in (
        "Rank matters",
        "Larger batches",
        "nearly the same at every rank",
        "ten times",
        "attention alone",
        "4-bit",
    ):
        answer, why = result([], claim)
        assert answer == "not tested" and why


def test_precision() -> None:
    control = {"worse": False, "low_bound": -0.01, "high_bound": 0.01, "text": "task"}
    assert result([], "4-bit", controls=[control])[0] == "agrees"
    assert result([], "4-bit", controls=[control | {"worse": True}])[0] == "disagrees"
    assert result([], "4-bit", controls=[control | {"low_bound": -0.2}])[0] == "can't tell"


@pytest.mark.parametrize("best_at_64, wanted", [(0.01, "agrees"), (0.001, "disagrees")])
def test_best_rate_at_every_rank(tmp_path: Path, best_at_64: float, wanted: str) -> None:
    def effect(cell):
        best = 0.01 if cell is None or cell.rank == 16 else best_at_64
        loss = 2.6 if cell is None else 1.0 + 0.5 * (cell.learning_rate != best)
        return {"target": 0.5, "retention": 0.5, "loss": loss}

    grid = {
        "design": "factorial",
        "learning_rate": [0.001, 0.01],
        "rank": [16, 64],
        "batch": [[2, 4]],
        "model": ["llama-s"],
    }
    study = synthetic.make_study(tmp_path, grid=grid)
    synthetic.make_results(study, tmp_path / "results", items=20, effect=effect)
    summary = compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "out")
    row = next(row for row in summary["scorecard"] if "every rank" in row["claim"])
    assert row["result"] == wanted


def test_every_source_is_named_and_an_unknown_rule_refused(tmp_path: Path) -> None:
    rows = scorecard(pd.DataFrame(), [], [], "t", "share")
    assert len(rows) >= 5 and all(source["title"] and source["where"] for row in rows for source in row["sources"])
    (tmp_path / "l.yaml").write_text(LITERATURE.read_text().replace("little_effect, axis", "magic, axis"))
    with pytest.raises(UserError, match="magic"):
        scorecard(pd.DataFrame(), [], [], "t", "share", tmp_path / "l.yaml")
