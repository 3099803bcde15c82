"""Held-out losses of models with different tokenizers: compared in bits per byte, on rows of one text."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import compare as stage
from loragrid.study.study_file import Study
from tests.fixtures import synthetic
from tests.fixtures.bits_per_byte import CUT, ROWS, add_bits_per_byte
from tests.fixtures.compared import read_table


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, dict]:
    """A compared study with two seeds of every run, whose second model has another tokenizer."""
    folder = tmp_path_factory.mktemp("by_byte")
    axes = {"learning_rate": [0.001, 0.01], "rank": None, "batch": None, "seed": [1, 2]}
    study, results = synthetic.make_study(folder, grid={"axes": axes}), folder / "results"
    synthetic.make_results(study, results, items=ROWS)
    for score in (results / "score").iterdir():
        add_bits_per_byte(score, cut=CUT if "gemma" in score.name else 0)
    return study, results, stage.compare(study=study, results=results, out=results / "compare")


def test_the_model_axis_compares_rows_of_one_text(made: tuple[Study, Path, dict]) -> None:
    study, results, summary = made
    rows = read_table(results, "axes").set_index(["axis", "value", "task"])
    row = rows.loc[("model", "gemma-s", "heldout_loss")]
    assert (row["metric"], row["level"], row["items"], row["items_total"]) == (
        "bits_per_byte",
        "setting",
        ROWS - CUT,
        ROWS,
    )
    assert row["verdict"] in ("better", "worse", "can't tell") and row["covers"] == "items and seeds"
    scores = {}
    for cell in study.cells:
        bits, size = (read_metric(results, cell.run, name)[: ROWS - CUT] for name in ("bits_per_byte", "target_bytes"))
        scores.setdefault((cell.model, cell.settings.learning_rate), []).append(np.average(bits, weights=size))
    by_hand = np.mean(scores["gemma-s", 0.01]) - np.mean(scores["llama-s", 0.01])
    assert row["difference"] == pytest.approx(by_hand)
    # One model's runs are compared by their own losses.
    assert rows.loc[("learning_rate", "1e-3", "heldout_loss"), "metric"] == "loss"
    assert set(read_table(results, "comparisons").query("task == 'heldout_loss'")["metric"]) == {"loss"}
    assert list(summary["tasks"]) == [*study.scoring.target, *study.scoring.retention]
    assert sum(rows.index.get_level_values("task") == "heldout_loss") == 2


def test_the_page_is_told_on_how_many_rows(made: tuple[Study, Path, dict]) -> None:
    found = [row for row in made[2]["not_comparable"] if row["code"] == "loss_across_tokenizers"]
    assert found == [
        {
            "code": "loss_across_tokenizers",
            "models": ["gemma-s", "llama-s"],
            "rows": ROWS - CUT,
            "rows_total": ROWS,
        }
    ]


def read_metric(results: Path, subject: str, metric: str) -> np.ndarray:
    items = pd.read_parquet(results / "score" / subject / "items.parquet")
    return items[items["metric"] == metric]["value"].to_numpy()


def test_without_a_score_in_bits_per_byte_losses_are_not_compared(tmp_path: Path) -> None:
    axes = {"learning_rate": None, "rank": None, "batch": None}
    study, results = synthetic.make_study(tmp_path, grid={"axes": axes}), tmp_path / "results"
    synthetic.make_results(study, results, items=ROWS)
    for score in (results / "score").glob("*llama*"):
        add_bits_per_byte(score, cut=0)
    summary = stage.compare(study=study, results=results, out=results / "compare")
    (row,) = read_table(results, "axes").query("task == 'heldout_loss'").to_dict("records")
    assert row["reason"] == "loss_on_other_tokens" and row["metric"] == "loss"
    assert {"code": "loss_across_tokenizers", "models": ["gemma-s", "llama-s"]} in summary["not_comparable"]
