"""The report's first answers and its sentences per axis, drawn from synthetic studies with known effects."""

import json
from pathlib import Path

import pytest

import compare
from loragrid.errors import UserError
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
    study = synthetic.make_study(tmp_path, grid={"base_case_seeds": [2, 3]})
    synthetic.make_results(study, tmp_path / "results", items=40)
    compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    material = gather(study, tmp_path / "results", collect(study, tmp_path / "results"))
    rows = [row for row in run_rows(material) if row["label"] in ("base case", "seed 2", "seed 3")]
    verdicts = [row["scores"][0]["verdict"] for row in rows]
    assert len(verdicts) == 3 and len(set(verdicts)) == 1 and verdicts[0]
    helped = answers(material.compared)[0].text
    assert "of 7 settings" in helped and "mean of 3 seeds" in helped


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
    found = gather(study, tmp_path / "results", collect(study, tmp_path / "results")).compared
    text = " ".join(answer.text for answer in answers(found))
    assert "4×8" not in text and "Batch was not compared: its runs trained on 3.89 times" in text
    assert axis_finding(found, "batch").startswith("Not compared: its runs trained on 3.89 times")
    batch = next(row for row in scorecard_rows(found) if "Large batches" in row["claim"])
    assert batch["result"] == "can't tell" and "3.89 times" in batch["why"]


def test_effects_on_other_tasks_are_named_and_one_gain_of_many_is_no_yes(tmp_path: Path) -> None:
    """Rank 64 forgets and changes nothing on the target; one learning rate alone gains."""

    def effect(cell):
        target = 0.9 if cell and cell.settings.learning_rate == 0.1 else 0.2
        return {"target": target, "retention": 0.2 if cell and cell.settings.rank == 64 else 0.9, "loss": 2.0}

    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", effect=effect)
    summary = compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    found = gather(study, tmp_path / "results", collect(study, tmp_path / "results")).compared
    helped, mattered, _ = answers(found)
    assert helped.short == "Some settings did" and helped.text.startswith("1 of 7 ")
    assert mattered.text.startswith("On running plan: learning rate 0.1 scored")
    assert "On other tasks: rank 64 is worse than 16 on" in mattered.text
    assert axis_finding(found, "rank").startswith("On running plan: 4 against 16: can’t tell")
    assert ". On other tasks: 64 is worse on" in axis_finding(found, "rank")
    methods = " ".join(methods_used(found))
    assert "McNemar" in methods and "flips of the signs" in methods and "seeds" not in methods
    assert summary["unmade_checks"].keys() <= summary["diagnoses"].keys()


@pytest.mark.parametrize(
    "forgetful, short, start",
    [
        (
            ("rank", 64),
            "Some runs forgot",
            "Two runs did worse on the retention tasks: learning rate 0.1 and rank 64. ",
        ),
        (("rank", 7), "Some runs forgot", "One run did worse on the retention tasks: learning rate 0.1. "),
        (("model", "llama-s"), "Some runs forgot", "Six runs did worse on the retention tasks: base case, "),
    ],
)
def test_runs_that_forgot_are_counted_and_named(tmp_path: Path, forgetful: tuple, short: str, start: str) -> None:
    name, value = forgetful

    def effect(cell):
        forgets = cell is not None and (cell.settings.learning_rate == 0.1 or getattr(cell.settings, name) == value)
        return {"target": 0.5, "retention": 0.2 if forgets else 0.9, "loss": 2.0}

    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", effect=effect, losses=False)
    compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    found = gather(study, tmp_path / "results", collect(study, tmp_path / "results")).compared
    forgotten = answers(found)[2]
    assert forgotten.short == short and forgotten.text.startswith(start)
    assert " and 3 more. " in forgotten.text or name == "rank"
    assert "lost most on average: −" in forgotten.text
    assert forgotten.text.endswith("None of 7 is fit to ship on this evidence.")


def test_results_of_another_version_of_compare_are_refused(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    path = tmp_path / "results/compare/compare.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 1}))
    with pytest.raises(UserError, match=r"compare\.json: written by another version of compare\. Fix: "):
        gather(study, tmp_path / "results", collect(study, tmp_path / "results"))
