"""Compare on made-up studies with known effects, and on studies of which parts are missing."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

import compare as stage
import synthetic
from study.errors import UserError
from study.grid import NOT_IDENTITY, expand
from study.outcomes import collect


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
    return next(c.run for c in expand(study) if all(getattr(c, key) == value for key, value in settings.items()))


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
    runs = [cell.run for cell in expand(study)]
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
    row = table(tmp_path / "results", "runs").set_index("subject").loc[expand(study)[0].run]
    assert row["training.budget.tokens"] == 80_000 and row["training.schedule"] == "linear"
    assert row["training.target_modules"] == "all-linear" and row["alpha"] == 16
    assert row["data.max_length_tokens"] == 384 and row["data.source.generator"] == "running_plans"
    settings = study.settings["training"]
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
    run = expand(study)[1].run
    (tmp_path / "results/train" / run / "record.json").write_text("{")
    by_subject = {outcome.subject: outcome for outcome in collect(study, tmp_path / "results")}
    assert by_subject[run].status == "unreadable" and "record.json" in by_subject[run].reason
    assert [outcome.status for outcome in by_subject.values()].count("unreadable") == 1


def test_scores_of_an_older_adapter_are_not_used(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    run = expand(study)[1].run
    path = tmp_path / "results/train" / run / "record.json"
    path.write_text(path.read_text().replace(json.loads(path.read_text())["adapter_sha256"], "0" * 64))
    outcome = next(o for o in collect(study, tmp_path / "results") if o.subject == run)
    assert outcome.status == "trained" and "another adapter" in outcome.reason


def test_seeds_are_averaged_and_their_spread_enters(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path, grid={"seed": [1, 2, 3]})
    synthetic.make_results(study, tmp_path / "results")
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    assert summary["seeds"] == [1, 2, 3]
    assert summary["noise"]["running_plan"]["df"] == 2 and summary["noise"]["running_plan"]["sd"] > 0
    rows = table(tmp_path / "results", "axes")
    assert (rows.loc[rows["difference"].notna(), "seed_noise"] == "measured").all()


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


def test_shipping_needs_a_proved_gain_and_kept_knowledge(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path, compare={"retention_margin": 0.1})
    synthetic.make_results(study, tmp_path / "results", items=400)
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    ship = {row["run"]: row for row in summary["trade_offs"]}
    case, high = (
        run_of(study, learning_rate=0.01, rank=16, batch=(2, 4), model="llama-s"),
        run_of(study, learning_rate=0.1),
    )
    assert ship[case]["ship"] == "ship"
    assert (ship[high]["ship"], ship[high]["ship_reason"]) == ("don't ship", "forgot more than the margin")
    assert not ship[high]["pareto"]


def test_no_effect_means_no_verdict(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    same = {"target": 0.5, "retention": 0.7, "loss": 2.0}
    claims = 0
    for seed in range(8):
        synthetic.make_results(study, tmp_path / "results", effect=lambda cell: same, seed=seed, losses=False)
        stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
        claims += (table(tmp_path / "results", "comparisons")["verdict"] != "can't tell").any()
    assert claims <= 2  # five in a hundred studies are allowed one


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
    path = tmp_path / "results/score" / expand(study)[0].run / "items.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"items\.parquet"):
        stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "out")
