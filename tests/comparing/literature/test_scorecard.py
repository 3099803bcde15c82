"""Published findings against cells that agree, disagree, leave it open, or are not there."""

import math
from pathlib import Path

import pandas as pd
import pytest

from loragrid.comparing.comparisons import settings_of
from loragrid.comparing.literature.findings import LITERATURE, load_findings, rules_digest
from loragrid.comparing.literature.scorecard import scorecard
from loragrid.comparing.literature.study_cells import StudyCells
from loragrid.comparing.measures import measures_of, spreads_of
from loragrid.comparing.study_results import JudgedTables, read_results
from loragrid.comparing.terms import Terms
from loragrid.errors import UserError
from tests.fixtures import synthetic

TERMS = Terms("holm", 0.05, 0.8, 2000, 1, retention_margin=0.05)


def axis_row(axis: str, value: str, base: str, difference: float, half: float, verdict: str) -> dict:
    row = {"axis": axis, "value": value, "base_case_value": base, "task": "t", "level": "setting"}
    row |= {"difference": difference, "low": difference - half, "high": difference + half, "token_ratio": 1.0}
    return row | {"verdict": verdict}


def of_one_seed(row: dict) -> dict:
    verdict = "can't tell" if row["verdict"] == "can't tell" else "adapters differ"
    return row | {"level": "adapters", "verdict": verdict}


def cells(rows: list[dict], controls: list[dict], unit: str) -> StudyCells:
    axes = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["axis", "task", "verdict", "level"])
    return StudyCells(JudgedTables(pd.DataFrame(), axes, pd.DataFrame(controls), {}, [], {}, TERMS), [], "t", unit)


def result(rows: list[dict], finding: str, **options) -> tuple[str, dict]:
    found = scorecard(cells(rows, options.get("controls", []), options.get("unit", "share")))
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


@pytest.mark.parametrize(
    "finding, row",
    [
        ("rank_matters_little", axis_row("rank", "64", "16", 0.01, 0.02, "can't tell")),
        ("rank_matters_little", axis_row("rank", "64", "16", 0.3, 0.02, "better")),
        ("large_batches_hurt", axis_row("batch", "4x8", "2x4", -0.2, 0.1, "worse")),
        ("attention_alone_is_worse", axis_row("target_modules", "attention", "all-linear", -0.2, 0.1, "worse")),
    ],
)
def test_one_seed_decides_nothing(finding: str, row: dict) -> None:
    assert result([row], finding)[0] != "not tested"
    why = {"code": "needs_second_seed", "axis": row["axis"]}
    assert result([of_one_seed(row)], finding) == ("can't tell", why)


def test_a_value_under_one_seed_keeps_the_rest_from_agreeing_and_not_from_disagreeing() -> None:
    little, large = (axis_row("rank", "4", "16", difference, 0.02, "better") for difference in (0.01, 0.3))
    alone = of_one_seed(axis_row("rank", "64", "16", 0.01, 0.02, "can't tell"))
    assert result([little], "rank_matters_little")[0] == "agrees"
    assert result([little, alone], "rank_matters_little")[1]["code"] == "needs_second_seed"
    assert result([large, alone], "rank_matters_little")[0] == "disagrees"


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
        "ten_times_the_rate_of_full_tuning": (
            "not tested",
            {"code": "needs_rates_of_methods", "methods": ["lora", "full"]},
        ),
        "attention_alone_is_worse": ("not tested", {"code": "not_varied", "axis": "target_modules"}),
        "forgets_less_than_full_tuning": ("not tested", {"code": "needs_methods", "methods": ["lora", "full"]}),
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


def answer(folder: Path, study, effect, finding: str) -> dict:
    """The answer from the runs alone: these rules look at no comparison of the tables."""
    synthetic.make_results(study, folder / "results", items=40, effect=effect, losses=False)
    found = read_results(study, folder / "results")
    measures = [measure for measure in measures_of(found.tables, found.target) if measure.family == "retention"]
    spreads = spreads_of(measures, [[run.subject for run in runs] for runs in settings_of(found.outcomes)])
    judged = JudgedTables(*(pd.DataFrame() for _ in range(3)), {}, measures, spreads, TERMS)
    rows = scorecard(StudyCells(judged, found.outcomes, found.target, "share"))
    return next(row for row in rows if row["finding"] == finding)


@pytest.mark.parametrize(
    "best_at_64, alpha, spread, seeds, wanted",
    [
        (0.01, 16, 0.005, [1, 2], "agrees"),
        (0.001, 16, 0.005, [1, 2], "disagrees"),
        (0.001, 16, 0.6, [1, 2], "can't tell"),
        (0.01, 16, 0.005, [1], "can't tell"),
        (0.01, "rank", 0.005, [1, 2], "not tested"),
    ],
)
def test_best_rate_at_every_rank(tmp_path: Path, best_at_64, alpha, spread, seeds, wanted: str) -> None:
    def effect(cell):
        best = 0.01 if cell is None or cell.settings.rank != 64 else best_at_64
        loss = 2.6 if cell is None else 1.0 + 0.5 * (cell.settings.learning_rate != best)
        luck = 0.0 if cell is None else spread * (cell.settings.seed - 1)
        return {"target": 0.5, "retention": 0.5, "loss": loss + luck}

    axes = {"learning_rate": [0.001, 0.01], "rank": [4, 16, 64], "batch": None, "model": None, "seed": seeds}
    study = synthetic.make_study(tmp_path, grid={"design": "factorial", "axes": axes}, base_case={"alpha": alpha})
    row = answer(tmp_path, study, effect, "one_best_rate_at_every_rank")
    assert row["result"] == wanted
    assert (row["why"]["code"] == "needs_second_seed") == (seeds == [1])


def of_methods(*, best: dict[str, float], kept: dict[str, float] | None = None):
    """Loss lowest at each method's best rate, and what each keeps at its best rate; at others it keeps all."""

    def effect(cell):
        if cell is None:
            return {"target": 0.5, "retention": 0.8, "loss": 2.6}
        method, rate = cell.settings.method, cell.settings.learning_rate
        off = abs(math.log10(rate / best[method]))
        retention = (kept or {}).get(method, 0.8) if off < 0.1 else 0.8
        return {"target": 0.5, "retention": retention, "loss": 1.0 + off + 0.004 * (cell.settings.seed - 1)}

    return effect


RATES = [1e-4, 1e-3, 1e-2, 1e-1]


def methods_study(folder: Path, seeds: list[int]):
    axes = {"method": ["lora", "full"], "learning_rate": RATES, "rank": None, "batch": None, "model": None}
    return synthetic.make_study(folder, grid={"design": "factorial", "axes": axes | {"seed": seeds}})


@pytest.mark.parametrize(
    "lora, seeds, wanted, code",
    [
        (1e-2, [1, 2], "agrees", "best_rates"),
        (1e-3, [1, 2], "disagrees", "best_rates"),
        (1e-1, [1, 2], "can't tell", "best_rate_at_edge"),
        (1e-2, [1], "can't tell", "needs_second_seed"),
    ],
)
def test_ten_times_the_rate_of_full_tuning(tmp_path: Path, lora, seeds, wanted: str, code: str) -> None:
    effect = of_methods(best={"lora": lora, "full": 1e-3})
    row = answer(tmp_path, methods_study(tmp_path, seeds), effect, "ten_times_the_rate_of_full_tuning")
    assert (row["result"], row["why"]["code"]) == (wanted, code)


@pytest.mark.parametrize(
    "kept, seeds, wanted",
    [
        ({"full": 0.2}, [1, 2, 3], "agrees"),
        ({"lora": 0.2}, [1, 2, 3], "disagrees"),
        ({}, [1, 2, 3], "can't tell"),
        ({"full": 0.2}, [1], "can't tell"),
    ],
)
def test_methods_forget_each_at_its_own_best_rate(tmp_path: Path, kept, seeds, wanted: str) -> None:
    """At the base case's rate of 0.01 full tuning keeps everything here, and is not at its best."""
    effect = of_methods(best={"lora": 1e-2, "full": 1e-3}, kept=kept)
    row = answer(tmp_path, methods_study(tmp_path, seeds), effect, "forgets_less_than_full_tuning")
    assert row["result"] == wanted
    assert row["why"]["code"] == ("needs_second_seed" if seeds == [1] else "methods_at_best_rates")
    if seeds != [1]:
        assert row["why"]["rates"] == [1e-2, 1e-3]


def test_every_source_is_named_and_an_unknown_rule_refused(tmp_path: Path) -> None:
    findings = load_findings().values()
    assert len(findings) >= 5
    assert all(source["title"] and source["where"] for finding in findings for source in finding.sources)
    (tmp_path / "l.yaml").write_text(LITERATURE.read_text().replace("little_effect, axis", "magic, axis"))
    with pytest.raises(UserError, match="magic"):
        scorecard(cells([], [], "share"), tmp_path / "l.yaml")


def test_a_claim_in_other_words_runs_no_comparison_again(tmp_path: Path) -> None:
    text, path = LITERATURE.read_text(), tmp_path / "l.yaml"
    path.write_text(text.replace("Large batches hurt LoRA", "LoRA suffers from large batches"))
    assert path.read_text() != text and rules_digest(path) == rules_digest()
    path.write_text(text.replace("margin: 0.05}", "margin: 0.04}", 1))
    assert rules_digest(path) != rules_digest()
