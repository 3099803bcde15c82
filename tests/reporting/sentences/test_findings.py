"""The report's first answers and its sentences per axis, drawn from synthetic studies with known effects."""

import json
from pathlib import Path

import compare
from loragrid.records.outcomes import collect
from loragrid.reporting.comparison_tables import methods_used
from loragrid.reporting.page import gather
from loragrid.reporting.runs_section import run_rows
from loragrid.reporting.sentences.axis_findings import axis_finding
from loragrid.reporting.sentences.limits import not_comparable_sentence
from loragrid.reporting.sentences.retention import answers
from loragrid.reporting.sentences.scorecard import scorecard_rows
from tests.fixtures import synthetic
from tests.fixtures.compared import read_table, run_of


def test_the_runs_of_a_setting_share_its_verdict_on_the_page(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path, grid={"seed": [1, 2, 3]})
    synthetic.make_results(study, tmp_path / "results", items=40)
    compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
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
    summary = compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = read_table(tmp_path / "results", "axes").query("axis == 'batch'")
    assert (rows["reason"] == "unequal_training_tokens").all() and rows["p"].isna().all()
    assert rows["token_ratio"].round(2).eq(3.89).all()
    sentences = [not_comparable_sentence(found) for found in summary["not_comparable"]]
    assert any(sentence.startswith("Batch 4×8 with the base case") for sentence in sentences)
    compared = gather(study, tmp_path / "results", collect(study, tmp_path / "results")).compared
    text = " ".join(answer.text for answer in answers(compared))
    assert "4×8" not in text and "Batch was not compared: its runs trained on 3.89 times" in text
    assert axis_finding(compared, "batch").startswith("Not compared: its runs trained on 3.89 times")
    batch = next(row for row in scorecard_rows(compared) if "Large batches" in row["claim"])
    assert batch["result"] == "can't tell" and "3.89 times" in batch["why"]


def test_what_an_axis_does_on_other_tasks_is_said_and_one_gain_of_many_is_no_yes(tmp_path: Path) -> None:
    """Rank 64 forgets and changes nothing on the target; one learning rate alone gains."""

    def effect(cell):
        target = 0.9 if cell and cell.learning_rate == 0.1 else 0.2
        return {"target": target, "retention": 0.2 if cell and cell.rank == 64 else 0.9, "loss": 2.0}

    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", effect=effect)
    summary = compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
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
