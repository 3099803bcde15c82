"""Published findings against cells that agree, disagree, leave it open, or are not there."""

from pathlib import Path

import pandas as pd
import pytest

import compare
from loragrid.comparing.literature.findings import LITERATURE, load_findings, rules_digest
from loragrid.comparing.literature.scorecard import StudyCells, scorecard
from loragrid.errors import UserError
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


def result(rows: list[dict], finding: str, **options) -> tuple[str, dict]:
    axes = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["axis", "task", "verdict"])
    controls = pd.DataFrame(options.get("controls", []))
    found = scorecard(StudyCells(axes, [], controls, options.get("unit", "share")))
    row = next(row for row in found if row["finding"] == finding)
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
    found, why = result([row], "rank_matters_little")
    named = why["rows"][0] if found == "disagrees" else why["row"]
    assert found == wanted and (named["axis"], named["value"]) == ("rank", "64")
    assert result([row], "rank_matters_little", unit="plain") == ("can't tell", {"code": "target_not_a_share"})


@pytest.mark.parametrize(
    "value, verdict, wanted",
    [
        ("4x8", "worse", "agrees"),
        ("4x8", "better", "disagrees"),
        ("1x1", "better", "agrees"),
        ("4x8", "can't tell", "can't tell"),
    ],
)
def test_larger_batches(value: str, verdict: str, wanted: str) -> None:
    assert result([axis_row("batch", value, "2x4", -0.2, 0.1, verdict)], "large_batches_hurt")[0] == wanted


@pytest.mark.parametrize(
    "value, base, verdict, wanted",
    [
        ("attention", "all-linear", "worse", "agrees"),
        ("attention", "all-linear", "better", "disagrees"),
        ("all-linear", "attention", "better", "agrees"),
        ("attention", "all-linear", "can't tell", "can't tell"),
        ("mlp", "all-linear", "worse", "not tested"),
    ],
)
def test_attention_alone(value: str, base: str, verdict: str, wanted: str) -> None:
    row = axis_row("target_modules", value, base, -0.2, 0.1, verdict)
    assert result([row], "attention_alone_is_worse")[0] == wanted


def test_what_could_not_be_compared_decides_nothing() -> None:
    row = axis_row("batch", "4x8", "2x4", -0.2, 0.1, "") | {"reason": "unequal_training_tokens", "token_ratio": 4.0}
    why = {"reason": "unequal_training_tokens", "task": "t", "token_ratio": 4.0}
    assert result([row], "large_batches_hurt") == ("can't tell", {"code": "not_compared", "row": why})


def test_what_the_grid_does_not_hold_is_not_tested() -> None:
    codes = {key: result([], key) for key in load_findings()}
    assert codes == {
        "rank_matters_little": ("not tested", {"code": "not_varied", "axis": "rank"}),
        "large_batches_hurt": ("not tested", {"code": "not_varied", "axis": "batch"}),
        "one_best_rate_at_every_rank": ("not tested", {"code": "needs_rates_at_each_value", "axis": "rank"}),
        "ten_times_the_rate_of_full_tuning": ("not tested", {"code": "needs_other_runs"}),
        "attention_alone_is_worse": ("not tested", {"code": "not_varied", "axis": "target_modules"}),
        "forgets_less_than_full_tuning": ("not tested", {"code": "needs_other_runs"}),
        "four_bits_are_enough": ("not tested", {"code": "needs_two_precisions"}),
    }


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
    assert (
        result([], "four_bits_are_enough", controls=[control, loss])[0] == "agrees"
    )  # points are no measure of a loss
    assert result([], "four_bits_are_enough", controls=[loss])[0] == "not tested"
    assert (
        result([], "four_bits_are_enough", controls=[control, control | {"low": -0.2, "high": -0.1}])[0] == "disagrees"
    )
    assert result([], "four_bits_are_enough", controls=[control | {"low": -0.2}])[0] == "can't tell"


@pytest.mark.parametrize(
    "best_at_64, alpha, wanted",
    [(0.01, 16, "agrees"), (0.001, 16, "disagrees"), (0.01, "rank", "not tested")],
)
def test_best_rate_at_every_rank(tmp_path: Path, best_at_64: float, alpha: int | str, wanted: str) -> None:
    def effect(cell):
        best = 0.01 if cell is None or cell.settings.rank == 16 else best_at_64
        loss = 2.6 if cell is None else 1.0 + 0.5 * (cell.settings.learning_rate != best)
        return {"target": 0.5, "retention": 0.5, "loss": loss}

    axes = {"learning_rate": [0.001, 0.01], "rank": [16, 64], "batch": None, "model": None}
    grid = {"design": "factorial", "axes": axes}
    study = synthetic.make_study(tmp_path, grid=grid, base_case={"alpha": alpha})
    synthetic.make_results(study, tmp_path / "results", items=20, effect=effect)
    summary = compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "out")
    row = next(row for row in summary["scorecard"] if row["finding"] == "one_best_rate_at_every_rank")
    assert row["result"] == wanted


def test_every_source_is_named_and_an_unknown_rule_refused(tmp_path: Path) -> None:
    findings = load_findings().values()
    assert len(findings) >= 5
    assert all(source["title"] and source["where"] for finding in findings for source in finding.sources)
    (tmp_path / "l.yaml").write_text(LITERATURE.read_text().replace("little_effect, axis", "magic, axis"))
    with pytest.raises(UserError, match="magic"):
        scorecard(StudyCells(pd.DataFrame(), [], pd.DataFrame(), "share"), tmp_path / "l.yaml")


def test_a_claim_in_other_words_runs_no_comparison_again(tmp_path: Path) -> None:
    text, path = LITERATURE.read_text(), tmp_path / "l.yaml"
    path.write_text(text.replace("Large batches hurt LoRA", "LoRA suffers from large batches"))
    assert path.read_text() != text and rules_digest(path) == rules_digest()
    path.write_text(text.replace("margin: 0.05}", "margin: 0.04}", 1))
    assert rules_digest(path) != rules_digest()
