"""The report's first answers and its sentences per axis, drawn from synthetic studies with known effects."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import compare
from loragrid.errors import UserError
from loragrid.records.outcomes import collect
from loragrid.records.seal import break_seal
from loragrid.reporting.certainty_section import family_sentences, methods_used, seed_spread_rows
from loragrid.reporting.page import Material, asked, gather
from loragrid.reporting.runs_section import run_rows
from loragrid.reporting.sentences.axis_findings import AxesFound, missed_text
from loragrid.reporting.sentences.limits import not_comparable_sentence
from loragrid.reporting.sentences.one_seed import one_seed_note
from loragrid.reporting.sentences.retention import answers
from loragrid.reporting.sentences.scorecard import scorecard_rows
from loragrid.reporting.sentences.value_findings import axis_finding
from tests.fixtures import synthetic
from tests.fixtures.compared import read_table, run_of

# Rates and ranks under three seeds: fewer prove nothing where one setting's seeds differ more than the others'.
RATES = {"rank": None, "batch": None, "model": None}
SEEDS = {"grid": {"axes": {"seed": [1, 2, 3], "batch": None, "model": None}}}


def compared_study(folder: Path, changes: dict, **options) -> Material:
    """A compared study with changes of the study file and options of its made-up results."""
    study = synthetic.make_study(folder, **changes)
    synthetic.make_results(study, folder / "results", losses=False, **options)
    compare.compare(study=study, results=folder / "results", out=folder / "results/compare")
    return gather(study, folder / "results", collect(study, folder / "results"))


def test_the_runs_of_a_setting_share_its_verdict_on_the_page(tmp_path: Path) -> None:
    material = compared_study(tmp_path, SEEDS, items=60)
    rows = [row for row in run_rows(material) if row["label"] in ("base case", "seed 2", "seed 3")]
    assert [row["scores"][0]["verdict"] for row in rows] == ["better"] * 3
    helped = answers(material.compared)[0]
    assert "of 5 settings beat their untrained base" in helped.text and "mean of 3 seeds" in helped.text
    assert helped.tone == "good" and one_seed_note(material) == ""
    assert len(asked(material)) == 3 and asked(material)[-1] == "Seeds: 1, 2 and 3."


def test_what_a_study_leaves_out_is_said_below_its_question(tmp_path: Path) -> None:
    text = "rank 32, so that every arm\n  has two seeds"
    material = compared_study(tmp_path, {"left_out": text} | SEEDS, items=20)
    assert asked(material)[-1] == "Left out: rank 32, so that every arm has two seeds"


def test_what_open_axes_would_miss_is_said_for_those_that_can_prove_something_and_for_those_that_cannot() -> None:
    nan = float("nan")
    assert missed_text(AxesFound(still=["rank"], detectable=[0.2]), "share").startswith(
        "an effect below about 20 points"
    )
    assert missed_text(AxesFound(still=["rank", "batch"], detectable=[nan, nan]), "share").endswith(
        "cannot prove any effect"
    )
    mixed = missed_text(AxesFound(still=["model", "rank", "batch"], detectable=[0.44, nan, 0.1]), "share")
    assert mixed == "an effect below about 44 points would usually be missed, and any effect of rank"


def test_with_one_seed_the_page_speaks_of_adapters_and_says_what_to_do(tmp_path: Path) -> None:
    material = compared_study(tmp_path, {"grid": {"axes": {"batch": None, "model": None}}})
    helped, mattered, forgotten = answers(material.compared)
    assert (helped.short, helped.tone) == ("These adapters gained", "adapters")
    assert re.match(r"\d of 5 adapters differ from their base on “running plan”: \d higher\. ", helped.text)
    assert "if the same adapter answered other items; another training seed is not in it; corrected p" in helped.text
    assert mattered.short == "Can’t tell" and mattered.text.startswith("No setting can be judged from one seed.")
    assert "Adapters that differ on running plan: learning rate 0.001 scored" in mattered.text
    assert (forgotten.short, forgotten.tone) == ("Some adapters lost", "adapters")
    assert "One adapter scored lower than the base on the mean over 3 retention tasks" in forgotten.text
    words = " ".join([helped.text, mattered.text, forgotten.text, axis_finding(material.compared, "learning_rate")])
    assert not re.search(r"\b(better|worse|ship on|forgot)\b", words)
    assert "the adapters of 0.1 and 0.01 differ (−" in words
    note = one_seed_note(material)
    assert note.startswith("Every setting was trained under one seed, so no setting can be judged")
    assert "grid.axes.seed: [1, 2]" in note and "twice the hours" in note


def test_settings_with_one_seed_beside_others_are_told_apart(tmp_path: Path) -> None:
    material = compared_study(tmp_path, {"grid": {"base_case_seeds": [2, 3], "axes": RATES}})
    helped, mattered, forgotten = answers(material.compared)
    assert one_seed_note(material).startswith("2 of 3 settings were trained under one seed and cannot be judged")
    assert (
        helped.text.startswith("1 of 1 setting beat its untrained base")
        and "2 adapters of one seed differ" in helped.text
    )
    assert "one seed in an arm, so nothing is said of the setting" in mattered.text
    # What the base case kept says nothing of the adapter that forgot.
    assert forgotten.short == "Some adapters lost" and "One adapter of one seed scored lower" in forgotten.text


def test_a_floor_is_named_beside_cant_tell(tmp_path: Path) -> None:
    def effect(cell):
        return {"target": 0.05, "retention": 0.7, "loss": 2.0}

    material = compared_study(tmp_path, {"grid": {"axes": RATES | {"seed": [1, 2, 3]}}}, effect=effect, items=60)
    helped = answers(material.compared)[0]
    found = (
        r"this test finds \d+ points or more with a probability of 80%; a score of \d+% leaves no room to show a loss\."
    )
    assert helped.short == "Can’t tell" and re.search(found, helped.text)


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


def test_effects_on_other_measures_are_named_and_one_gain_of_many_is_no_yes(tmp_path: Path) -> None:
    """Rank 64 forgets and changes nothing on the target; one learning rate alone gains."""

    def effect(cell):
        target = 0.9 if cell and cell.settings.learning_rate == 0.1 else 0.2
        return {"target": target, "retention": 0.2 if cell and cell.settings.rank == 64 else 0.9, "loss": 2.0}

    material = compared_study(tmp_path, SEEDS, effect=effect)
    found = material.compared
    helped, mattered, _ = answers(found)
    assert helped.short == "Some settings did" and helped.text.startswith("1 of 5 settings beat its untrained base")
    assert mattered.text.startswith("On running plan: learning rate 0.1 scored")
    # Pooled retention is a question of its own; single tasks are counted as exploratory.
    assert (
        "On other measures: rank 64 is worse than 16 on mean retention (exploratory: 3 more measures)" in mattered.text
    )
    assert axis_finding(found, "rank").startswith("On running plan: 4 against 16: can’t tell")
    assert "64 is worse on mean retention, and world facts, world sums and world lists (exploratory)." in axis_finding(
        found, "rank"
    )
    assert methods_used(found) == [
        "Settings are tested by a t test, with the variances of items and of seeds in the error."
    ]
    assert found.summary["unmade_checks"].keys() <= found.summary["diagnoses"].keys()
    of_settings = family_sentences(found)
    assert of_settings[0].startswith("Of settings: 9 on the main target, 9 on mean retention and ")
    spreads = {row["task"]: row for row in seed_spread_rows(found)}
    assert spreads["mean retention"]["shared"].endswith(" df)")
    # The seeds of the setting that gained stay apart further than those of the others.
    assert spreads["running plan"]["own"].startswith("learning rate 0.1: ")


@pytest.mark.parametrize(
    "forgetful, short, start",
    [
        (
            ("rank", 64),
            "Some settings forgot",
            "Two settings did worse on the mean over 3 retention tasks: learning rate 0.1 and rank 64. ",
        ),
        (
            ("model", "llama-s"),
            "All settings forgot",
            "Five settings did worse on the mean over 3 retention tasks: base case, ",
        ),
    ],
)
def test_settings_that_forgot_are_counted_and_named(tmp_path: Path, forgetful: tuple, short: str, start: str) -> None:
    name, value = forgetful

    def effect(cell):
        forgets = cell is not None and (cell.settings.learning_rate == 0.1 or getattr(cell.settings, name) == value)
        return {"target": 0.5, "retention": 0.2 if forgets else 0.9, "loss": 2.0}

    forgotten = answers(compared_study(tmp_path, SEEDS, effect=effect).compared)[2]
    assert forgotten.short == short and forgotten.text.startswith(start)
    assert " and 2 more. " in forgotten.text or name == "rank"
    assert "The base case changed by " in forgotten.text
    assert re.search(r"Single tasks \(exploratory\): \d worse on world facts", forgotten.text)
    assert forgotten.text.endswith("None of 5 is shown fit to ship.")


def test_results_of_another_version_of_compare_are_refused(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    path = tmp_path / "results/compare/compare.json"
    break_seal(path.parent)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 1, "sealed": False}))
    with pytest.raises(UserError, match=r"compare\.json: written by another version of compare\. Fix: "):
        gather(study, tmp_path / "results", collect(study, tmp_path / "results"))


def test_many_values_of_one_verdict_share_a_clause() -> None:
    values = [{"value": value, "difference": gain} for value, gain in (("1", 0.1), ("2", 0.2), ("3", 0.3), ("4", 0.4))]
    row = {"axis": "rank", "task": "t", "family": "target", "base_case_value": "16", "low": 0.05, "high": 0.5}
    rows = pd.DataFrame([row | {"verdict": "better"} | value for value in values])
    compared = SimpleNamespace(axes=rows, target="t", unit="share", higher_is_better=True)
    assert axis_finding(compared, "rank") == (
        "On t: better than 16: 1 (+10 points), 2 (+20 points), 3 (+30 points) and 4 (+40 points)."
    )
