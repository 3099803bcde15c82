"""Compare on made-up studies with known effects, and on studies of which parts are missing."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import compare as stage
from loragrid.errors import UserError
from loragrid.records.outcomes import collect
from loragrid.reporting.comparison_tables import methods_used
from loragrid.reporting.findings import axis_finding
from loragrid.reporting.page import gather, run_rows
from loragrid.reporting.retention import answers
from loragrid.study.grid import NOT_IDENTITY
from tests.fixtures import synthetic


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """A study with a known effect, compared: (study, results, summary)."""
    folder = tmp_path_factory.mktemp("made")
    study = synthetic.make_study(folder)
    synthetic.make_results(study, folder / "results")
    return (
        study,
        folder / "results",
        stage.compare(study=study, results=folder / "results", out=folder / "results/compare"),
    )


def table(results: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(results / "compare" / f"{name}.csv", dtype={"value": str} if name == "axes" else None)


def run_of(study, **settings) -> str:
    return next(c.run for c in study.cells if all(getattr(c, key) == value for key, value in settings.items()))


def test_known_effects_are_found(made) -> None:
    study, results, _ = made
    rows = table(results, "comparisons").set_index(["run", "task"])
    case, high = (
        run_of(study, learning_rate=0.01, rank=16, batch=(2, 4), model="llama-s"),
        run_of(study, learning_rate=0.1),
    )
    assert rows.loc[(case, "running_plan"), "verdict"] == "better"
    assert rows.loc[(case, "heldout_loss"), "verdict"] == "better"  # lower is better
    assert rows.loc[(case, "heldout_loss"), "difference"] < 0 < rows.loc[(case, "heldout_loss"), "improvement"]
    assert rows.loc[(case, "world_facts"), "verdict"] == "can't tell"
    assert rows.loc[(high, "world_facts"), "verdict"] == "worse"
    told = rows[rows["verdict"] == "can't tell"]
    assert told["detectable"].notna().all() and rows["low"].le(rows["high"]).all()
    assert (rows["p_corrected"] >= rows["p"]).all()


def test_axes_against_the_base_case(made) -> None:
    _, results, summary = made
    rows = table(results, "axes").set_index(["axis", "value", "task"])
    assert rows.loc[("learning_rate", "0.001", "running_plan"), "verdict"] == "worse"
    assert rows.loc[("rank", "64", "running_plan"), "verdict"] == "can't tell"
    assert rows.loc[("batch", "4×8", "running_plan"), "verdict"] == "can't tell"
    other = rows.loc[("model", "gemma-s", "heldout_loss")]
    assert "not comparable" in other["reason"] and pd.isna(other["verdict"])  # other tokens
    assert (rows["seed_noise"] == "not measured").all()
    both = table(results, "comparisons")["p"].notna().sum() + rows["p"].notna().sum()
    assert summary["family"] == both


def test_losses_on_the_same_tokens_are_compared_across_models(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    for card in (tmp_path / "results/data").glob("*/card.json"):
        card.write_text(json.dumps(json.loads(card.read_text()) | {"heldout_fingerprint": "the same"}))
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = table(tmp_path / "results", "axes").set_index(["axis", "value", "task"])
    assert rows.loc[("model", "gemma-s", "heldout_loss"), "verdict"] in ("better", "worse", "can't tell")


def test_what_is_missing_stays_with_its_reason(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    runs = [cell.run for cell in study.cells]
    faults = dict(zip(runs[1:], ("failed", "paused", "missing", "diverged", "unscored")))
    synthetic.make_results(study, tmp_path / "results", faults=faults)
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = table(tmp_path / "results", "runs").set_index("subject")
    assert rows.loc[runs[1], ["status", "reason"]].tolist() == ["failed", "needed 900 MiB"]
    assert rows.loc[runs[2], "status"] == "paused" and "SIGTERM at step 7" in rows.loc[runs[2], "reason"]
    assert rows.loc[runs[3], ["status", "reason"]].tolist() == ["missing", "not run yet"]
    assert rows.loc[runs[4], ["status", "reason"]].tolist() == ["diverged", "loss is NaN at step 12"]
    assert rows.loc[runs[5], ["status", "reason"]].tolist() == ["trained", "not scored yet"]
    assert rows.loc[runs[0], "status"] == "scored" and len(rows) == len(runs) + 2


def test_every_setting_of_a_run_has_a_column(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    row = table(tmp_path / "results", "runs").set_index("subject").loc[study.cells[0].run]
    assert row["training.budget.tokens"] == 80_000 and row["training.schedule"] == "linear"
    assert row["training.target_modules"] == "all-linear" and row["alpha"] == 16
    assert row["data.max_length_tokens"] == 384 and row["data.source.generator"] == "running_plans"
    settings = study.yaml["training"]
    kept = {name.split(".")[1] for name in row.index if name.startswith("training.")} | {"alpha"}
    assert kept == set(settings) - set(NOT_IDENTITY)


def test_nothing_there_at_all(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    assert summary["family"] == 0 and summary["trade_offs"] == []
    assert set(table(tmp_path / "results", "runs")["status"]) == {"missing"}


def test_a_broken_record_is_named_and_takes_no_other_with_it(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    run = study.cells[1].run
    (tmp_path / "results/train" / run / "record.json").write_text("{")
    by_subject = {outcome.subject: outcome for outcome in collect(study, tmp_path / "results")}
    assert by_subject[run].status == "unreadable" and "record.json" in by_subject[run].reason
    assert [outcome.status for outcome in by_subject.values()].count("unreadable") == 1


def test_scores_of_an_older_adapter_are_not_used(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    run = study.cells[1].run
    path = tmp_path / "results/train" / run / "record.json"
    path.write_text(path.read_text().replace(json.loads(path.read_text())["adapter_sha256"], "0" * 64))
    outcome = next(o for o in collect(study, tmp_path / "results") if o.subject == run)
    assert outcome.status == "trained" and "another adapter" in outcome.reason


def test_seeds_are_averaged_and_their_spread_enters(tmp_path: Path) -> None:
    """Base case under three seeds; numbers made again by hand."""
    study = synthetic.make_study(tmp_path, grid={"seed": [1, 2, 3]})
    synthetic.make_results(study, tmp_path / "results")
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    case = [cell for cell in study.cells if not set(cell.departs) - {"seed"}]
    other = next(cell for cell in study.cells if cell.departs == {"rank": 64})
    score = {name: values_of(tmp_path / "results", name) for name in (case[0].base, other.run, *(c.run for c in case))}
    seeds = [score[cell.run].mean() for cell in case]
    variance = np.var(seeds, ddof=1)
    assert summary["seeds"] == [1, 2, 3]
    assert summary["noise"]["running_plan"]["variance"] == pytest.approx(variance)
    assert summary["noise"]["running_plan"]["df"] == 2
    mean = np.mean([score[cell.run] for cell in case], axis=0)

    rows = table(tmp_path / "results", "comparisons").set_index(["run", "task"])
    assert rows.index.get_level_values("run").nunique() == 7  # settings, not runs
    row = rows.loc[(case[0].run, "running_plan")]
    assert row["runs"].split() == [cell.run for cell in case] and row["seeds"] == 3
    assert row["score"] == pytest.approx(np.mean(seeds))
    check_interval(row, mean - score[case[0].base], variance, share=1 / 3)
    axes = table(tmp_path / "results", "axes").set_index(["axis", "value", "task"])
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


def test_the_runs_of_a_setting_share_its_verdict_on_the_page(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path, grid={"seed": [1, 2, 3]})
    synthetic.make_results(study, tmp_path / "results", items=40)
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    material = gather(study, tmp_path / "results", collect(study, tmp_path / "results"))
    rows = [row for row in run_rows(material) if row["label"] in ("base case", "seed 2", "seed 3")]
    assert (
        len({row["scores"][0]["verdict"] for row in rows}) == 1 and len(rows) == 3 and rows[0]["scores"][0]["verdict"]
    )
    assert (
        "of 7 settings" in answers(material.compared)[0].text
        and "mean of 3 seeds" in answers(material.compared)[0].text
    )


def test_no_sentence_compares_runs_on_unequal_tokens(tmp_path: Path) -> None:
    """Four times the rows an update at the same number of updates: four times the tokens."""
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    path = tmp_path / "results/train" / run_of(study, batch=(4, 8)) / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"tokens": record["tokens"] * 4, "steps": record["steps"] * 4}))
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = table(tmp_path / "results", "axes").query("axis == 'batch'")
    assert (
        rows["reason"].str.contains("not comparable: its runs trained on 3.89 times").all() and rows["p"].isna().all()
    )
    assert any(sentence.startswith("Batch 4×8 with the base case") for sentence in summary["not_comparable"])
    compared = gather(study, tmp_path / "results", collect(study, tmp_path / "results")).compared
    text = " ".join(answer.text for answer in answers(compared))
    assert "4×8" not in text and "Batch was not compared: its runs trained on 3.89 times" in text
    assert axis_finding(compared, "batch").startswith("Not compared: ")
    batch = next(row for row in summary["scorecard"] if "Large batches" in row["claim"])
    assert batch["result"] == "can't tell" and "3.89 times" in batch["why"]


def test_items_of_a_passage_count_once(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", items=120, cluster_items=5)
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    assert summary["tasks"]["running_plan"]["clusters"] == 24 and summary["tasks"]["heldout_loss"]["clusters"] is None
    rows = table(tmp_path / "results", "comparisons").set_index("task")
    assert (rows.loc["running_plan", "units"] == 24).all() and (rows.loc["heldout_loss", "units"] == 120).all()
    wide = (
        table(tmp_path / "results", "scores").set_index(["subject", "task"]).loc[(study.cells[0].run, "running_plan")]
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
    reasons = table(tmp_path / "results", "comparisons").query("task == 'running_plan'")["reason"]
    assert (reasons == "only 5 independent clusters of items in common, too few for any difference to be proved").all()


def test_fewer_bits_are_judged_with_all_other_comparisons(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", items=200)
    outcomes = collect(study, tmp_path / "results")
    low, high = "gemma-s", "llama-s"
    for name, precision in ((high, "16bit"), (low, "4bit")):
        study.yaml["models"][name] = {"path": "one", "precision": precision, "chat_template": None}
    tables, terms = stage.load_items(tmp_path / "results", outcomes), stage.Terms(**study.yaml["compare"])
    bases = {o.model: o.subject for o in outcomes if o.kind == "base"}
    for task, step in (("world_facts", 3), ("world_sums", 40)):
        values = tables[task].values
        values[bases[low]] = np.where(np.arange(200) % step == 0, 0.0, values[bases[high]])
    controls = stage.versus_precision(study, outcomes, tables, terms)
    comparisons = stage.versus_base(outcomes, tables, terms)
    family = stage.judge([comparisons, controls], tables, terms)
    assert family == comparisons["p"].notna().sum() + len(tables)
    rows = controls.set_index("task")
    assert rows.loc["world_facts", "verdict"] == "worse" and rows.loc["world_sums", "verdict"] == "can't tell"


def test_a_factorial_grid_is_averaged_over_its_pairs(tmp_path: Path) -> None:
    grid = {
        "design": "factorial",
        "learning_rate": [0.001, 0.01],
        "rank": [4, 16],
        "batch": [[2, 4]],
        "model": ["llama-s"],
    }
    study = synthetic.make_study(tmp_path, grid=grid)
    synthetic.make_results(study, tmp_path / "results")
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = table(tmp_path / "results", "axes").set_index(["axis", "value", "task"])
    assert rows.loc[("learning_rate", "0.001", "running_plan"), "pairs"] == 2


def test_pairs_on_two_tokenizers_each_compare_their_own_loss(tmp_path: Path) -> None:
    grid = {"design": "factorial", "learning_rate": [0.001, 0.01], "rank": [16], "batch": [[2, 4]]}
    study = synthetic.make_study(tmp_path, grid=grid)
    synthetic.make_results(study, tmp_path / "results")
    for path in (tmp_path / "results/score").glob("*gemma-s*/items.parquet"):  # other tokens, other weights
        items = pd.read_parquet(path)
        items.loc[items["metric"] == "loss_tokens", "value"] = np.arange(1, 101)
        items.to_parquet(path, index=False)
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = table(tmp_path / "results", "axes").set_index(["axis", "value", "task"])
    row = rows.loc[("learning_rate", "0.001", "heldout_loss")]
    score = table(tmp_path / "results", "scores").query("task == 'heldout_loss'").set_index("subject")["value"]
    cells = {(cell.model, cell.learning_rate): score[cell.run] for cell in study.cells}
    by_hand = np.mean([cells[model, 0.001] - cells[model, 0.01] for model in ("llama-s", "gemma-s")])
    assert row["difference"] == pytest.approx(by_hand) and row["verdict"] == "worse"
    assert "different tokens" in rows.loc[("model", "gemma-s", "heldout_loss"), "reason"]


def test_no_effect_means_no_verdict(tmp_path: Path) -> None:
    """Through the whole stage; that the rate of false verdicts is held is tested in test_stats.py, on a thousand studies."""
    study = synthetic.make_study(tmp_path)
    same = {"target": 0.5, "retention": 0.7, "loss": 2.0}
    claims = 0
    for seed in range(4):
        synthetic.make_results(study, tmp_path / "results", effect=lambda cell: same, seed=seed, losses=False, items=60)
        stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
        for name in ("comparisons", "axes"):
            claims += table(tmp_path / "results", name)["verdict"].isin(["better", "worse"]).any()
    assert claims == 0


def test_twice_the_same_bytes(made, tmp_path: Path) -> None:
    study, results, _ = made
    stage.compare(study=study, results=results, out=tmp_path)
    for name in ("runs.csv", "scores.csv", "comparisons.csv", "axes.csv", "compare.json"):
        assert (tmp_path / name).read_bytes() == (results / "compare" / name).read_bytes()


def test_command_line(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, results, _ = made
    monkeypatch.setattr(
        sys, "argv", ["compare.py", "--study", str(study.path), "--results", str(results), "--out", str(tmp_path)]
    )
    stage.main()
    assert json.loads((tmp_path / "compare.json").read_text())["study"] == study.name


def test_items_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    path = tmp_path / "results/score" / study.cells[0].run / "items.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"items\.parquet"):
        stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "out")


def test_what_an_axis_does_on_other_tasks_is_said_and_one_gain_of_many_is_no_yes(tmp_path: Path) -> None:
    """Rank 64 forgets and changes nothing on the target; one learning rate alone gains."""

    def effect(cell):
        target = 0.9 if cell and cell.learning_rate == 0.1 else 0.2
        return {"target": target, "retention": 0.2 if cell and cell.rank == 64 else 0.9, "loss": 2.0}

    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", effect=effect)
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    compared = gather(study, tmp_path / "results", collect(study, tmp_path / "results")).compared
    helped, mattered, _ = answers(compared)
    assert helped.short == "Some settings did" and helped.text.startswith("1 of 7 ")
    assert mattered.text.startswith("On running plan: learning rate 0.1 scored")
    assert "On other tasks: rank (with alpha) 64 is worse than 16 on" in mattered.text
    assert axis_finding(compared, "rank").startswith("On running plan: 4 against 16: can’t tell")
    assert ". On other tasks: 64 is worse on" in axis_finding(compared, "rank")
    told = " ".join(methods_used(compared))
    assert "McNemar" in told and "flips of the signs" in told and "seeds" not in told
    assert summary["unmade_checks"].keys() <= summary["diagnoses"].keys()
