"""Settings against their bases and values against the base case's, on synthetic studies with known effects."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import compare as stage
from loragrid.comparing.comparisons import Terms, versus_base, versus_precision
from loragrid.comparing.item_tables import load_items
from loragrid.comparing.verdicts import judge
from loragrid.records.outcomes import collect
from tests.fixtures import synthetic
from tests.fixtures.compared import read_table, run_of


def test_known_effects_are_found(made) -> None:
    study, results, _ = made
    rows = read_table(results, "comparisons").set_index(["run", "task"])
    case, high = (
        run_of(study, learning_rate=0.01, rank=16, batch=(2, 4), model="llama-s"),
        run_of(study, learning_rate=0.1),
    )
    assert rows.loc[(case, "running_plan"), "verdict"] == "better"
    assert rows.loc[(case, "heldout_loss"), "verdict"] == "better"  # lower is better
    assert rows.loc[(case, "heldout_loss"), "difference"] < 0 < rows.loc[(case, "heldout_loss"), "improvement"]
    assert rows.loc[(case, "world_facts"), "verdict"] == "can't tell"
    assert rows.loc[(high, "world_facts"), "verdict"] == "worse"
    unsure = rows[rows["verdict"] == "can't tell"]
    assert unsure["detectable"].notna().all() and rows["low"].le(rows["high"]).all()
    assert (rows["p_corrected"] >= rows["p"]).all()


def test_axes_against_the_base_case(made) -> None:
    _, results, summary = made
    rows = read_table(results, "axes").set_index(["axis", "value", "task"])
    assert rows.loc[("learning_rate", "0.1", "running_plan"), "verdict"] == "worse"
    assert rows.loc[("rank", "64", "running_plan"), "verdict"] == "can't tell"
    assert rows.loc[("batch", "4x8", "running_plan"), "verdict"] == "can't tell"
    other = rows.loc[("model", "gemma-s", "heldout_loss")]
    assert other["reason"] == "loss_on_other_tokens" and pd.isna(other["verdict"])
    assert (rows["seed_noise"] == "not measured").all()
    both = read_table(results, "comparisons")["p"].notna().sum() + rows["p"].notna().sum()
    assert summary["family"] == both


def test_losses_on_the_same_tokens_are_compared_across_models(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    for card in (tmp_path / "results/data").glob("*/card.json"):
        card.write_text(json.dumps(json.loads(card.read_text()) | {"heldout_fingerprint": "the same"}))
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = read_table(tmp_path / "results", "axes").set_index(["axis", "value", "task"])
    assert rows.loc[("model", "gemma-s", "heldout_loss"), "verdict"] in ("better", "worse", "can't tell")


def test_seeds_are_averaged_and_their_spread_enters(tmp_path: Path) -> None:
    """Base case under three seeds; numbers made again by hand."""
    study = synthetic.make_study(tmp_path, grid={"base_case_seeds": [2, 3]})
    synthetic.make_results(study, tmp_path / "results")
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    case = [cell for cell in study.cells if not cell.arm]
    other = next(cell for cell in study.cells if cell.departs == {"rank": 64})
    score = {name: values_of(tmp_path / "results", name) for name in (case[0].base, other.run, *(c.run for c in case))}
    seeds = [score[cell.run].mean() for cell in case]
    variance = np.var(seeds, ddof=1)
    assert summary["seeds"] == [1, 2, 3]
    assert summary["noise"]["running_plan"]["variance"] == pytest.approx(variance)
    assert summary["noise"]["running_plan"]["df"] == 2
    mean = np.mean([score[cell.run] for cell in case], axis=0)

    rows = read_table(tmp_path / "results", "comparisons").set_index(["run", "task"])
    assert rows.index.get_level_values("run").nunique() == 7  # settings, not runs
    row = rows.loc[(case[0].run, "running_plan")]
    assert row["runs"].split() == [cell.run for cell in case] and row["seeds"] == 3
    assert row["score"] == pytest.approx(np.mean(seeds))
    check_interval(row, mean - score[case[0].base], variance, share=1 / 3)
    axes = read_table(tmp_path / "results", "axes").set_index(["axis", "value", "task"])
    assert (axes.loc[axes["difference"].notna(), "seed_noise"] == "measured").all()
    alone = score[other.run] - mean
    assert axes.loc[("rank", "64", "running_plan"), "difference"] == pytest.approx(alone.mean())
    check_interval(axes.loc[("rank", "64", "running_plan")], alone, variance, share=1 + 1 / 3)
    verdicts = {row["run"]: row["runs"] for row in summary["trade_offs"]}
    assert len(verdicts) == 7 and verdicts[case[0].run] == " ".join(cell.run for cell in case)


def values_of(results: Path, subject: str) -> np.ndarray:
    items = pd.read_parquet(results / "score" / subject / "items.parquet")
    return items[items["task"] == "running_plan"]["value"].to_numpy()


def check_interval(row: pd.Series, difference: np.ndarray, seed_variance: float, share: float) -> None:
    """The row's interval is the t interval with the variances of items and seeds added, after Satterthwaite."""
    items, seeds = difference.var(ddof=1) / len(difference), seed_variance * share
    df = (items + seeds) ** 2 / (items**2 / (len(difference) - 1) + seeds**2 / 2)
    low, high = scipy.stats.t.interval(0.95, df, difference.mean(), np.sqrt(items + seeds))
    assert (row["low"], row["high"]) == pytest.approx((low, high), rel=0.05, abs=0.005)
    assert row["method"] == "t with item and seed variance" and row["detectable"] > high - difference.mean()


def test_items_of_a_passage_count_once(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", items=120, cluster_items=5)
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    assert summary["tasks"]["running_plan"]["clusters"] == 24 and summary["tasks"]["heldout_loss"]["clusters"] is None
    rows = read_table(tmp_path / "results", "comparisons").set_index("task")
    assert (rows.loc["running_plan", "units"] == 24).all() and (rows.loc["heldout_loss", "units"] == 120).all()
    wide = (
        read_table(tmp_path / "results", "scores")
        .set_index(["subject", "task"])
        .loc[(study.cells[0].run, "running_plan")]
    )
    clusters = values_of(tmp_path / "results", study.cells[0].run).reshape(24, 5).mean(axis=1)
    low, high = scipy.stats.t.interval(0.95, 23, clusters.mean(), clusters.std(ddof=1) / np.sqrt(24))
    assert (wide["low"], wide["high"]) == pytest.approx((low, high))
    # Files from before there were clusters are read, and their items stand alone.
    for path in (tmp_path / "results/score").glob("*/items.parquet"):
        pd.read_parquet(path).drop(columns="cluster").to_parquet(path, index=False)
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    assert summary["tasks"]["running_plan"]["clusters"] is None


def test_too_few_passages_prove_nothing_and_say_so(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", items=30, cluster_items=6)
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = read_table(tmp_path / "results", "comparisons").query("task == 'running_plan'")
    assert (rows["reason"] == "too_few_clusters").all() and (rows["units"] == 5).all()


def test_fewer_bits_are_judged_with_all_other_comparisons(tmp_path: Path) -> None:
    axes = {"precision": ["16bit", "4bit"], "model": None, "learning_rate": None, "rank": None, "batch": None}
    study = synthetic.make_study(tmp_path, grid={"axes": axes}, base_case={"precision": "16bit"})
    synthetic.make_results(study, tmp_path / "results", items=200)
    outcomes = collect(study, tmp_path / "results")
    tables, terms = load_items(tmp_path / "results", outcomes), Terms(**study.yaml["compare"])
    bases = {cell.settings.precision: base for base, cell in study.bases.items()}
    for task, step in (("world_facts", 3), ("world_sums", 40)):
        values = tables[task].values
        values[bases["4bit"]] = np.where(np.arange(200) % step == 0, 0.0, values[bases["16bit"]])
    controls = versus_precision(study, outcomes, tables, terms)
    comparisons = versus_base(outcomes, tables, terms)
    family = judge([comparisons, controls], tables, terms)
    assert family == comparisons["p"].notna().sum() + len(tables)
    rows = controls.set_index("task")
    assert rows.loc["world_facts", "verdict"] == "worse" and rows.loc["world_sums", "verdict"] == "can't tell"


def test_a_factorial_grid_is_averaged_over_its_pairs(tmp_path: Path) -> None:
    grid = {
        "design": "factorial",
        "axes": {"learning_rate": [0.001, 0.01], "rank": [4, 16], "batch": None, "model": None},
    }
    study = synthetic.make_study(tmp_path, grid=grid)
    synthetic.make_results(study, tmp_path / "results")
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = read_table(tmp_path / "results", "axes").set_index(["axis", "value", "task"])
    assert rows.loc[("learning_rate", "1e-3", "running_plan"), "pairs"] == 2


def test_pairs_on_two_tokenizers_each_compare_their_own_loss(tmp_path: Path) -> None:
    grid = {"design": "factorial", "axes": {"learning_rate": [0.001, 0.01], "rank": None, "batch": None}}
    study = synthetic.make_study(tmp_path, grid=grid)
    synthetic.make_results(study, tmp_path / "results")
    for path in (tmp_path / "results/score").glob("*gemma-s*/items.parquet"):  # other tokens, other weights
        items = pd.read_parquet(path)
        items.loc[items["metric"] == "loss_tokens", "value"] = np.arange(1, 101)
        items.to_parquet(path, index=False)
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = read_table(tmp_path / "results", "axes").set_index(["axis", "value", "task"])
    row = rows.loc[("learning_rate", "1e-3", "heldout_loss")]
    score = read_table(tmp_path / "results", "scores").query("task == 'heldout_loss'").set_index("subject")["value"]
    cells = {(cell.model, cell.settings.learning_rate): score[cell.run] for cell in study.cells}
    by_hand = np.mean([cells[model, 0.001] - cells[model, 0.01] for model in ("llama-s", "gemma-s")])
    assert row["difference"] == pytest.approx(by_hand) and row["verdict"] == "worse"
    assert rows.loc[("model", "gemma-s", "heldout_loss"), "reason"] == "loss_on_other_tokens"


def test_no_effect_means_no_verdict(tmp_path: Path) -> None:
    """Through the whole stage. test_paired_statistics.py tests the rate of false verdicts, on a thousand studies."""
    study = synthetic.make_study(tmp_path)
    same = {"target": 0.5, "retention": 0.7, "loss": 2.0}
    claims = 0
    for seed in range(4):
        synthetic.make_results(study, tmp_path / "results", effect=lambda cell: same, seed=seed, losses=False, items=60)
        stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
        for name in ("comparisons", "axes"):
            claims += read_table(tmp_path / "results", name)["verdict"].isin(["better", "worse"]).any()
    assert claims == 0
