"""The compare stage as a whole: what it writes, and what it does when results are missing or broken."""

import json
import sys
from pathlib import Path

import pytest

import compare as stage
from loragrid.errors import UserError
from loragrid.records.outcomes import collect
from loragrid.records.seal import digests_of, write_seal
from loragrid.study.completion import setting_names
from tests.fixtures import synthetic
from tests.fixtures.compared import read_table


def test_what_is_missing_stays_with_its_reason(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    runs = [cell.run for cell in study.cells]
    faults = dict(zip(runs[1:], ("failed", "paused", "missing", "diverged", "unscored")))
    synthetic.make_results(study, tmp_path / "results", faults=faults)
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = read_table(tmp_path / "results", "runs").set_index("subject")
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
    row = read_table(tmp_path / "results", "runs").set_index("subject").loc[study.cells[0].run]
    assert (
        row["budget.tokens"] == study.yaml["base_case"]["budget"]["tokens"]
        and row["schedule"] == "cosine"
        and row["warmup.steps"] == 5
    )
    assert row["target_modules"] == "all-linear" and row["alpha"] == 16 and row["batch"] == "2x4"
    assert row["max_length_tokens"] == 384 and row["data"] == "plans" and row["method"] == "lora"
    assert {name.split(".")[0] for name in row.index} >= set(setting_names())


def test_nothing_there_at_all(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    summary = stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    assert summary["families"] == {} and summary["trade_offs"] == [] and summary["best_setting"] is None
    assert summary["learned_nothing"] == []
    assert set(read_table(tmp_path / "results", "runs")["status"]) == {"missing"}


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
    path.write_text(path.read_text().replace(json.loads(path.read_text())["weights_sha256"], "0" * 64))
    outcome = next(o for o in collect(study, tmp_path / "results") if o.subject == run)
    assert outcome.status == "trained" and "other weights" in outcome.reason


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


@pytest.mark.parametrize("change", ["changed", "removed"])
def test_items_that_are_not_those_of_the_score_are_refused(tmp_path: Path, change: str) -> None:
    study = synthetic.make_study(tmp_path, grid={"axes": {"learning_rate": None, "rank": None, "batch": None}})
    synthetic.make_results(study, tmp_path / "results")
    path = tmp_path / "results/score" / study.cells[0].run / "items.parquet"
    text = (path.parent / "score.json").read_text()
    write_seal(path.parent, digests_of(path.parent, [path]), record="score.json", text=text)
    if change == "changed":
        path.write_bytes(path.read_bytes() + b" ")
    else:
        path.unlink()
    with pytest.raises(UserError, match=rf"items\.parquet: {change} since it was written"):
        stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "out")


def test_a_subject_that_was_asked_other_prompts_than_its_base_is_refused(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    cell = study.cells[0]
    for subject, third in ((cell.base, "prompt 3"), (cell.run, "another prompt")):
        file = tmp_path / "results/score" / subject / "items.parquet"
        table = pyarrow.parquet.read_table(file)
        asked = [third if number == 3 else f"prompt {number}" for number in range(len(table))]
        column = table.schema.get_field_index("prompt_sha256")
        pyarrow.parquet.write_table(table.set_column(column, "prompt_sha256", pyarrow.array(asked)), file)
    message = r"items\.parquet: 1 items of .* were asked with another prompt than those of its base .* Fix: delete"
    with pytest.raises(UserError, match=message):
        stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
