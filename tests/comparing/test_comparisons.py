"""Settings against their bases and values against the base case's, on synthetic studies with known effects."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import compare as stage
from loragrid.comparing.judging import judge_results
from loragrid.comparing.study_results import read_results
from loragrid.comparing.terms import Terms
from tests.fixtures import synthetic
from tests.fixtures.compared import read_table, run_of


def test_known_effects_are_found(made) -> None:
    study, results, _ = made
    rows = read_table(results, "comparisons").set_index(["run", "task"])
    case, high = run_of(study, learning_rate=0.01), run_of(study, learning_rate=0.1)
    assert (rows["level"] == "setting").all() and (rows["covers"] == "items and seeds").all()
    assert rows.loc[(case, "running_plan"), "verdict"] == "better"
    assert rows.loc[(case, "heldout_loss"), "verdict"] == "better"  # lower is better
    assert rows.loc[(case, "heldout_loss"), "difference"] < 0 < rows.loc[(case, "heldout_loss"), "improvement"]
    assert rows.loc[(case, "world_facts"), "verdict"] == "can't tell"
    assert rows.loc[(high, "world_facts"), "verdict"] == rows.loc[(high, "retention"), "verdict"] == "worse"
    assert rows["low"].le(rows["high"]).all() and (rows["p"] > 0).all()
    assert (rows["p_corrected"] >= rows["p"]).all()


def test_what_could_be_found_is_said_of_open_questions_alone(made) -> None:
    _, results, _ = made
    rows = pd.concat([read_table(results, name) for name in ("comparisons", "axes")])
    rows = rows[rows["verdict"].notna()]
    unsure = rows[rows["verdict"] == "can't tell"]
    # With the one degree of freedom of two seeds a share may have to change by more than 1.
    assert unsure["detectable"].notna().mean() > 0.5
    assert rows.loc[rows["verdict"] != "can't tell", "detectable"].isna().all()


def test_axes_against_the_base_case(made) -> None:
    _, results, summary = made
    rows = read_table(results, "axes").set_index(["axis", "value", "task"])
    assert rows.loc[("learning_rate", "0.1", "running_plan"), "verdict"] == "worse"
    assert rows.loc[("rank", "64", "running_plan"), "verdict"] == "can't tell"
    assert rows.loc[("batch", "4x8", "running_plan"), "verdict"] == "can't tell"
    other = rows.loc[("model", "gemma-s", "heldout_loss")]
    assert other["reason"] == "loss_on_other_tokens" and pd.isna(other["verdict"])
    both = pd.concat([read_table(results, "comparisons"), rows.reset_index()])
    tested = both[both["p"].notna()]
    assert summary["families"] == {"setting": tested.groupby("family").size().to_dict()}
    assert (tested.loc[tested["task"] == "running_plan", "family"] == "target").all()


def test_losses_on_the_same_tokens_are_compared_across_models(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    for card in (tmp_path / "results/data").glob("*/card.json"):
        card.write_text(json.dumps(json.loads(card.read_text()) | {"heldout_fingerprint": "the same"}))
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = read_table(tmp_path / "results", "axes").set_index(["axis", "value", "task"])
    assert rows.loc[("model", "gemma-s", "heldout_loss"), "verdict"] in ("adapters differ", "can't tell")


def test_seeds_are_averaged_item_by_item(tmp_path: Path) -> None:
    """The base case under three seeds and all else under one or two: means by hand, and what each row can speak of."""
    study = synthetic.make_study(tmp_path, grid={"axes": {"seed": [1, 2]}, "base_case_seeds": [1, 2, 3]})
    alone = run_of(study, rank=64, seed=2)
    synthetic.make_results(study, tmp_path / "results", faults={alone: "missing"})
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    case = [cell.run for cell in study.cells if not cell.arm]
    one = run_of(study, rank=64)
    both = [cell.run for cell in study.cells if cell.settings.rank == 4]
    base = study.cells[0].base
    mean = {name: np.mean([values_of(tmp_path / "results", run) for run in runs], axis=0)
            for name, runs in (("case", case), ("one", [one]), ("two", both), ("base", [base]))}  # fmt: skip

    rows = read_table(tmp_path / "results", "comparisons").set_index(["run", "task"])
    assert rows.index.get_level_values("run").nunique() == 7, "settings, not runs"
    row = rows.loc[(case[0], "running_plan")]
    assert row["runs"].split() == case and row["seeds"] == 3 and row["level"] == "setting"
    assert row["score"] == pytest.approx(mean["case"].mean())
    assert row["difference"] == pytest.approx((mean["case"] - mean["base"]).mean())
    assert rows.loc[(one, "running_plan"), ["seeds", "level", "covers"]].tolist() == [1, "adapters", "items"]
    axes = read_table(tmp_path / "results", "axes").set_index(["axis", "value", "task"])
    for value, name, level in (("64", "one", "adapters"), ("4", "two", "setting")):
        row = axes.loc[("rank", value, "running_plan")]
        assert row["difference"] == pytest.approx((mean[name] - mean["case"]).mean()) and row["level"] == level
    assert summary["seeds"] == [1, 2, 3]
    assert {"target", "retention", "exploratory"} == summary["families"]["setting"].keys()
    spread = summary["seed_spreads"]["running_plan"]
    pooled = spread["pooled"] or {"df": 0, "settings": 0}
    # One setting with three seeds and five with two.
    assert pooled["df"] + sum(own["df"] for own in spread["own"].values()) == 7
    assert pooled["settings"] + len(spread["own"]) == 6
    verdicts = {row["run"]: row["runs"] for row in summary["trade_offs"]}
    assert len(verdicts) == 7 and verdicts[case[0]] == " ".join(case)


def values_of(results: Path, subject: str) -> np.ndarray:
    items = pd.read_parquet(results / "score" / subject / "items.parquet")
    return items[items["task"] == "running_plan"]["value"].to_numpy()


def test_a_run_with_a_third_of_the_items_says_so(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", losses=False)
    short, whole = study.cells[1].run, study.cells[2].run
    path = tmp_path / "results/score" / short / "items.parquet"
    items = pd.read_parquet(path)
    items[(items["task"] != "running_plan") | (items["item"].astype(int) < 35)].to_parquet(path, index=False)
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = read_table(tmp_path / "results", "comparisons").set_index(["run", "task"])
    counts = ["items", "items_total", "requests"]
    assert rows.loc[(short, "running_plan"), counts].tolist() == [35, 100, 35]
    assert rows.loc[(whole, "running_plan"), counts].tolist() == [100, 100, 100]
    # Both sides of the difference are over the 35 items.
    row, base = rows.loc[(short, "running_plan")], values_of(tmp_path / "results", study.cells[1].base)[:35]
    assert row["reference_score"] == pytest.approx(base.mean())
    assert row["score"] == pytest.approx(values_of(tmp_path / "results", short).mean())


def test_items_that_ask_the_same_are_one_cluster(tmp_path: Path) -> None:
    """The demo's hundred plans were 28 requests, and a greedy model answers each alike."""
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", losses=False)
    for path in (tmp_path / "results/score").glob("*/items.parquet"):
        items = pd.read_parquet(path)
        plan = items["task"] == "running_plan"
        items.loc[plan, "prompt_sha256"] = (items["item"].astype(int) // 4).astype(str)
        items.to_parquet(path, index=False)
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    task = summary["tasks"]["running_plan"]
    assert (task["items"], task["requests"], task["clusters"]) == (100, 25, 25)
    rows = read_table(tmp_path / "results", "comparisons").query("task == 'running_plan'")
    assert (rows["requests"] == 25).all() and (rows["units"] == 25).all() and (rows["items"] == 100).all()
    assert "exact McNemar" not in set(rows["method"]), "McNemar's test counts items"


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
    study = synthetic.make_study(tmp_path, grid={"axes": axes | {"seed": [1, 2]}}, base_case={"precision": "16bit"})
    synthetic.make_results(study, tmp_path / "results", items=200)
    results = read_results(study, tmp_path / "results")
    bases = {cell.settings.precision: base for base, cell in study.bases.items()}
    for task, step in (("world_facts", 3), ("world_sums", 40)):
        values = results.tables[task].values
        values[bases["4bit"]] = np.where(np.arange(200) % step == 0, 0.0, values[bases["16bit"]])
    judged = judge_results(results, Terms(**study.yaml["compare"]))
    tested = pd.concat([judged.comparisons, judged.axes, judged.controls])
    assert judged.families["setting"]["exploratory"] == (tested["family"] == "exploratory").sum()
    rows = judged.controls.set_index("task")
    # Bases have no seed, so nothing is missing from what their items show.
    assert (rows["level"] == "setting").all() and (rows["covers"] == "items").all()
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
    assert row["difference"] == pytest.approx(by_hand)
    assert row["improvement"] < 0 and row["verdict"] == "adapters differ"
    assert rows.loc[("model", "gemma-s", "heldout_loss"), "reason"] == "loss_on_other_tokens"


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_no_effect_means_no_verdict(tmp_path: Path, seeds: list[int]) -> None:
    """Through the whole stage; `make truth` shows the rate of false verdicts, on many studies."""
    study = synthetic.make_study(tmp_path, grid={"axes": {"seed": seeds}})
    same = {"target": 0.5, "retention": 0.7, "loss": 2.0}
    for seed in range(2):
        synthetic.make_results(study, tmp_path / "results", effect=lambda cell: same, seed=seed, losses=False, items=60)
        stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
        for name in ("comparisons", "axes"):
            assert set(read_table(tmp_path / "results", name)["verdict"].dropna()) == {"can't tell"}
