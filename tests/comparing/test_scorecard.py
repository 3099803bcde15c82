"""Published findings against cells that agree, disagree, leave it open, or are not there."""

from pathlib import Path

import pandas as pd
import pytest

import compare
from loragrid.comparing.scorecard import LITERATURE, scorecard
from loragrid.errors import UserError
from loragrid.formatting import AXIS_NAMES
from tests.fixtures import synthetic


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


NAMES = AXIS_NAMES | {"rank": "rank (with alpha)"}


def result(rows: list[dict], claim: str, **options) -> tuple[str, str]:
    axes = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["axis", "task", "verdict"])
    controls = pd.DataFrame(options.get("controls", []))
    found = scorecard(axes, [], controls, "t", options.get("unit", "share"), NAMES)
    row = next(row for row in found if claim in row["claim"])
    return row["result"], row["why"]


@pytest.mark.parametrize(
    "difference, half, verdict, wanted",
    [
        (0.01, 0.03, "can't tell", "agrees"),
        (0.03, 0.01, "better", "agrees"),  # proved, and little
        (0.2, 0.1, "better", "disagrees"),
        (0.07, 0.04, "better", "can't tell"),  # proved, and perhaps little
        (0.01, 0.2, "can't tell", "can't tell"),
    ],
)
def test_little_is_what_lies_within_the_margin(difference, half, verdict, wanted) -> None:
    row = axis_row("rank", "64", "16", difference, half, verdict)
    found, why = result([row], "Rank matters little")
    assert found == wanted and ("rank (with alpha) 64" in why or wanted == "agrees")
    assert result([row], "Rank matters little", unit="plain")[0] == "can't tell"


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
    assert result([axis_row("batch", value, "2×4", -0.2, 0.1, verdict)], "Large batches")[0] == wanted


def test_what_could_not_be_compared_decides_nothing() -> None:
    row = axis_row("batch", "4×8", "2×4", -0.2, 0.1, "") | {"reason": "not comparable: its runs trained on 4 times"}
    assert result([row], "Large batches") == ("can't tell", "not comparable: its runs trained on 4 times")


def test_what_the_grid_does_not_hold_is_not_tested() -> None:
    for claim in (
        "Rank matters",
        "Large batches",
        "nearly the same at every rank",
        "ten times",
        "attention alone",
        "4-bit",
    ):
        answer, why = result([], claim)
        assert answer == "not tested" and why


def test_precision() -> None:
    control = {
        "task": "facts",
        "unit": "share",
        "verdict": "can't tell",
        "low": -0.01,
        "high": 0.01,
        "precision": "4bit",
    }
    control |= {"difference": 0.0}
    loss = control | {"unit": "plain", "low": -9.0, "high": -5.0, "verdict": "worse"}
    assert result([], "4-bit", controls=[control, loss])[0] == "agrees"  # points are no measure of a loss
    assert result([], "4-bit", controls=[loss])[0] == "not tested"
    assert result([], "4-bit", controls=[control, control | {"low": -0.2, "high": -0.1}])[0] == "disagrees"
    assert result([], "4-bit", controls=[control | {"low": -0.2}])[0] == "can't tell"


@pytest.mark.parametrize(
    "best_at_64, alpha, wanted",
    [(0.01, 16, "agrees"), (0.001, 16, "disagrees"), (0.01, "rank", "not tested")],
)
def test_best_rate_at_every_rank(tmp_path: Path, best_at_64: float, alpha: int | str, wanted: str) -> None:
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
    study = synthetic.make_study(tmp_path, grid=grid, training={"alpha": alpha})
    synthetic.make_results(study, tmp_path / "results", items=20, effect=effect)
    summary = compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "out")
    row = next(row for row in summary["scorecard"] if "every rank" in row["claim"])
    assert row["result"] == wanted


def test_every_source_is_named_and_an_unknown_rule_refused(tmp_path: Path) -> None:
    rows = scorecard(pd.DataFrame(), [], pd.DataFrame(), "t", "share", NAMES)
    assert len(rows) >= 5 and all(source["title"] and source["where"] for row in rows for source in row["sources"])
    (tmp_path / "l.yaml").write_text(LITERATURE.read_text().replace("little_effect, axis", "magic, axis"))
    with pytest.raises(UserError, match="magic"):
        scorecard(pd.DataFrame(), [], pd.DataFrame(), "t", "share", NAMES, tmp_path / "l.yaml")
