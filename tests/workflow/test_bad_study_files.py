"""Mistakes in a study file: each ends in one line that names the key and the fix, and changes no result."""

from collections.abc import Callable

import pytest

from tests.fixtures.bad_input import Break, Stages, Workspace, setting


def study_text(change: Callable[[str], str]) -> Break:
    return lambda workspace: workspace.study.write_text(change(workspace.study.read_text()))


STUDIES = {
    "an unknown section": (setting("trainig", {}), ["mine.yaml", "trainig", "training"]),
    "an unknown key": (setting("training.lr", 1), ["training.lr"]),
    "a number as text": (setting("base_case.learning_rate", "2e-4"), ["base_case.learning_rate", "2.0e-4"]),
    "a number as text in a list": (setting("grid.learning_rate", ["2e-4"]), ["grid.learning_rate[0]", "2.0e-4"]),
    "rank 0": (setting("base_case.rank", 0), ["base_case.rank", "minimum"]),
    "a negative rank": (setting("grid.rank", [-4]), ["grid.rank[0]"]),
    "a rank as a fraction": (setting("base_case.rank", 1.5), ["base_case.rank", "a whole number"]),
    "a rank of yes": (setting("base_case.rank", True), ["base_case.rank", "a whole number"]),
    "an unknown model": (setting("base_case.model", "toi"), ["base_case.model", "toi", "toy"]),
    "an unknown model in the grid": (setting("grid.model", ["toi"]), ["grid.model", "toi"]),
    "an empty grid": (setting("grid.learning_rate", []), ["grid.learning_rate", "at least one"]),
    "no models": (setting("models", {}), ["models"]),
    "half a row per device": (setting("base_case.batch", [0.5, 4]), ["base_case.batch[0]", "a whole number"]),
    "three batch numbers": (setting("base_case.batch", [1, 2, 3]), ["base_case.batch"]),
    "a batch as text": (setting("base_case.batch", "2x4"), ["base_case.batch", "2x4"]),
    "a missing data file": (setting("data.source", {"path": "gone.json"}), ["data.source.path", "gone.json"]),
    "a folder as data": (setting("data.source", {"path": "model"}), ["data.source.path", "model"]),
    "two sources": (setting("data.source", {"path": "rows.json", "hub": "a/b"}), ["data.source"]),
    "a hub set without revision": (setting("data.source", {"hub": "a/b", "split": "train"}), ["data.source.revision"]),
    "a missing model folder": (setting("models.toy.path", "gone"), ["models.toy.path", "gone"]),
    "an unknown precision": (setting("models.toy.precision", "8bit"), ["models.toy.precision", "8bit"]),
    "a missing chat template": (setting("models.toy.chat_template", "gone.jinja"), ["models.toy.chat_template"]),
    "more held out than half": (setting("data.max_rows", 10), ["data.heldout_rows"]),
    "an infinite learning rate": (setting("base_case.learning_rate", float("inf")), ["base_case.learning_rate"]),
    "a negative learning rate": (setting("base_case.learning_rate", -0.1), ["base_case.learning_rate"]),
    "two budgets": (setting("training.budget", {"steps": 1, "tokens": 1}), ["training.budget"]),
    "no budget": (setting("training.budget", {}), ["training.budget"]),
    "dropout of all": (setting("training.dropout", 1), ["training.dropout"]),
    "an unknown optimizer": (setting("training.optimizer", "adam"), ["training.optimizer", "adam"]),
    "an unknown tracker": (setting("training.report_to", "mlflow"), ["training.report_to"]),
    "no minutes": (setting("training.session_minutes", 0), ["training.session_minutes"]),
    "a task in both lists": (setting("scoring.retention", ["heldout_loss"]), ["heldout_loss", "both"]),
    "a task file that is not there": (setting("scoring.retention", ["gone.yaml"]), ["scoring.retention", "gone.yaml"]),
    "prompts that are not there": (setting("scoring.qualitative", "gone.jsonl"), ["scoring.qualitative", "gone.jsonl"]),
    "an alpha of one": (setting("compare.alpha", 1), ["compare.alpha"]),
    "a section left out": (study_text(lambda t: t.replace("compare:", "#:")), ["mine.yaml"]),
    "a key left out": (
        study_text(lambda t: t.replace("  warmup_steps: 5\n", "")),
        ["training.warmup_steps", "missing"],
    ),
    "a key twice": (study_text(lambda t: t + "title: again\n"), ["mine.yaml", "twice"]),
    "a tab": (study_text(lambda t: t.replace("  design", "\tdesign")), ["mine.yaml", "YAML"]),
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
