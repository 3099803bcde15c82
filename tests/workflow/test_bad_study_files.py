"""Mistakes in a study file: each ends in one line that names the key and the fix, and changes no result."""

from collections.abc import Callable

import pytest

from tests.fixtures.bad_input import Break, Stages, Workspace, setting


def study_text(change: Callable[[str], str]) -> Break:
    return lambda workspace: workspace.study.write_text(change(workspace.study.read_text()))


STUDIES = {
    "an unknown section": (setting("trainig", {}), ["mine.yaml", "trainig", "training"]),
    "an unknown key": (setting("training.lr", 1), ["training.lr"]),
    "a number as text": (setting("base_case.learning_rate", "0.1"), ["base_case.learning_rate", "without quotes"]),
    "a number as text in a list": (
        setting("grid.axes.learning_rate", ["0.1"]),
        ["grid.axes.learning_rate[0]", "without quotes"],
    ),
    "rank 0": (setting("base_case.rank", 0), ["base_case.rank", "minimum"]),
    "a negative rank": (setting("grid.axes.rank", [-4]), ["grid.axes.rank[0]"]),
    "a rank as a fraction": (setting("base_case.rank", 1.5), ["base_case.rank", "a whole number"]),
    "a rank of yes": (setting("base_case.rank", True), ["base_case.rank", "a whole number"]),
    "an unknown model": (setting("base_case.model", "toi"), ["base_case.model", "toi", "toy"]),
    "an unknown model in the grid": (setting("grid.axes.model", ["toi"]), ["grid.axes.model", "toi"]),
    "an empty grid": (setting("grid.axes.learning_rate", []), ["grid.axes.learning_rate", "at least one"]),
    "no models": (setting("models", {}), ["models"]),
    "half a row per device": (setting("base_case.batch", [0.5, 4]), ["base_case.batch[0]", "a whole number"]),
    "three batch numbers": (setting("base_case.batch", [1, 2, 3]), ["base_case.batch"]),
    "a batch as text": (setting("base_case.batch", "2x4"), ["base_case.batch", "2x4"]),
    "a missing data file": (setting("data.rows.source", {"path": "gone.json"}), ["data.rows.source.path", "gone.json"]),
    "two sources": (setting("data.rows.source", {"path": "rows.json", "hub": "a/b"}), ["data.rows.source"]),
    "a hub set without revision": (
        setting("data.rows.source", {"hub": "a/b", "split": "train"}),
        ["data.rows.source.revision"],
    ),
    "a mix of nothing known": (setting("data.both", {"mix": {"gone": 1}}), ["data.both.mix.gone", "gone"]),
    "an unknown data set": (setting("base_case.data", "gone"), ["base_case.data", "gone", "rows"]),
    "held-out rows of nothing known": (setting("heldout.set", "gone"), ["heldout.set", "gone", "rows"]),
    "a missing model folder": (setting("models.toy.path", "gone"), ["models.toy.path", "gone"]),
    "an unknown precision": (setting("base_case.precision", "8bit"), ["base_case.precision", "8bit"]),
    "a missing chat template": (setting("models.toy.chat_template", "gone.jinja"), ["models.toy.chat_template"]),
    "more held out than half": (setting("heldout.rows", 30), ["heldout.rows"]),
    "an infinite learning rate": (setting("base_case.learning_rate", float("inf")), ["base_case.learning_rate"]),
    "a negative learning rate": (setting("base_case.learning_rate", -0.1), ["base_case.learning_rate"]),
    "two budgets": (setting("base_case.budget", {"steps": 1, "tokens": 1}), ["base_case.budget"]),
    "no budget": (setting("base_case.budget", {}), ["base_case.budget"]),
    "dropout of all": (setting("base_case.dropout", 1), ["base_case.dropout"]),
    "an unknown optimizer": (setting("base_case.optimizer", "adam"), ["base_case.optimizer", "adam"]),
    "an unknown tracker": (setting("training.report_to", "mlflow"), ["training.report_to"]),
    "no minutes": (setting("training.session_minutes", 0), ["training.session_minutes"]),
    "a task in both lists": (setting("scoring.retention", ["heldout_loss"]), ["heldout_loss", "both"]),
    "a task file that is not there": (setting("scoring.retention", ["gone.yaml"]), ["scoring.retention", "gone.yaml"]),
    "prompts that are not there": (setting("scoring.qualitative", "gone.jsonl"), ["scoring.qualitative", "gone.jsonl"]),
    "an alpha of one": (setting("compare.alpha", 1), ["compare.alpha"]),
    "a section left out": (study_text(lambda t: t.replace("title:", "#:")), ["mine.yaml", "title", "missing"]),
    "a key left out": (setting("data.rows", {"rows": 5}), ["data.rows"]),
    "a rank of a method without one": (
        setting("base_case", {"method": "full", "rank": 4}),
        ["base_case.rank", "full", "remove it"],
    ),
    "a base that the method cannot train": (
        setting("grid.tied", [{"method": "full", "precision": "4bit"}]),
        ["precision", "full cannot train a 4bit base", "16bit"],
    ),
    "no expression": (setting("base_case.alpha", "2 + rank"), ["alpha", "2 + rank", "joined by * and /"]),
    "code as an expression": (setting("base_case.alpha", "__import__('os').rank"), ["alpha", "not an expression"]),
    "a key twice": (study_text(lambda t: t + "title: again\n"), ["mine.yaml", "twice"]),
    "a tab": (study_text(lambda t: t.replace("  learning_rate", "\tlearning_rate")), ["mine.yaml", "YAML"]),
    "no YAML": (study_text(lambda t: "{[" + t), ["mine.yaml", "YAML"]),
    "an empty file": (study_text(lambda t: ""), ["mine.yaml"]),
    "a list": (study_text(lambda t: "- 1\n"), ["mine.yaml"]),
    "code": (study_text(lambda t: "a: !!python/object/apply:os.getcwd []\n"), ["mine.yaml", "YAML"]),
}


@pytest.mark.parametrize("mistake", STUDIES)
def test_a_study_file(workspace: Workspace, stages: Stages, mistake: str) -> None:
    break_it, words = STUDIES[mistake]
    break_it(workspace)
    stages.check("prepare_data", words)


def test_at_least_forty_mistakes_are_tried() -> None:
    assert len(STUDIES) >= 40
