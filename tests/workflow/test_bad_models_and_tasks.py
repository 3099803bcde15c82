"""Mistakes in models, task files and prepared data: each ends in one line with the file and the fix."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.fixtures.bad_input import Break, Stages, Workspace, config, in_model, setting

OWN_CODE = config(model_type="mine", auto_map={"AutoModelForCausalLM": "mine.Model"})
MODELS = {
    "no configuration": (in_model(lambda f: (f / "config.json").unlink()), ["config.json"]),
    "half a configuration": (in_model(lambda f: (f / "config.json").write_text("{")), ["config.json"]),
    "no model type": (config(model_type=None), ["config.json", "model_type"]),
    "an unknown model type": (config(model_type="nonsense"), ["model", "config.json", "nonsense"]),
    "code of its own": (OWN_CODE, ["auto_map", "never"]),
    "no weights": (in_model(lambda f: (f / "model.safetensors").unlink()), ["safetensors"]),
    "pickled weights": (
        in_model(lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin")),
        ["pickled", "convert"],
    ),
    "half the weights": (in_model(lambda f: os.truncate(f / "model.safetensors", 999)), ["safetensors"]),
    "weights of another shape": (config(hidden_size=64), ["model", "config.json"]),
    "heads that do not divide": (config(num_attention_heads=3), ["model", "config.json", "attention heads"]),
    "a number in words": (config(num_hidden_layers="two"), ["model", "config.json", "num_hidden_layers"]),
    "no key heads": (config(num_key_value_heads=0), ["model", "config.json", "ZeroDivisionError"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MODELS)
def test_a_model_folder(workspace: Workspace, stages: Stages, mistake: str) -> None:
    break_it, words = MODELS[mistake]
    workspace.prepare_data()
    break_it(workspace)
    stages.check("score", words)


TASK = {
    "task": "mine",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "items.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}",
    "doc_to_choice": ["a", "b"],
    "doc_to_target": 0,
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def task(text: str | None = None, items: str = '{"q": "x"}\n', **changes: object) -> Break:
    def change(workspace: Workspace) -> None:
        (workspace.folder / "items.jsonl").write_text(items)
        (workspace.folder / "task.yaml").write_text(text if text is not None else yaml.safe_dump(TASK | changes))
        workspace.set("scoring.retention", ["task.yaml"])
        workspace.write()

    return change


TASKS = {
    "no YAML": (task("{["), ["task.yaml"]),
    "an empty file": (task(""), ["task.yaml"]),
    "no items": (task(dataset_kwargs={"data_files": {"test": "gone.jsonl"}}), ["task.yaml"]),
    "broken items": (task(items="{half"), ["task.yaml"]),
    "an unknown output type": (task(output_type="essay"), ["task.yaml"]),
    "an unknown metric": (task(metric_list=[{"metric": "nonsense"}]), ["nonsense"]),
    "a name of nothing": (setting("scoring.retention", ["no_such_task"]), ["no_such_task"]),
}


@pytest.mark.parametrize("mistake", TASKS)
def test_a_task_file(workspace: Workspace, stages: Stages, mistake: str) -> None:
    break_it, words = TASKS[mistake]
    workspace.prepare_data()
    break_it(workspace)
    stages.check("score", words)


def in_data(name: str, change: Callable[[Path], object]) -> Break:
    return lambda workspace: change(workspace.folder / "data" / name)


TRAINING = {
    "no data": (lambda workspace: shutil.rmtree(workspace.folder / "data"), ["card.json"]),
    "no card": (in_data("card.json", lambda f: f.unlink()), ["card.json"]),
    "half a card": (in_data("card.json", lambda f: f.write_text("{")), ["card.json"]),
    "a card that is a list": (in_data("card.json", lambda f: f.write_text("[]")), ["card.json"]),
    "a card of other rows": (
        in_data("card.json", lambda f: f.write_text(json.dumps(json.loads(f.read_text()) | {"fingerprint": "x"}))),
        ["card.json", "changed"],
    ),
    "no rows": (in_data("train.parquet", lambda f: f.unlink()), ["train.parquet"]),
    "half the rows": (in_data("heldout.parquet", lambda f: os.truncate(f, 99)), ["heldout.parquet"]),
    "a library that is not installed": (setting("training.report_to", "trackio"), ["training.report_to", "trackio"]),
    "a precision that no CPU trains in": (setting("base_case.compute_dtype", "fp16"), ["compute_dtype"]),
    "no base": (in_model(lambda f: (f / "model.safetensors").unlink()), ["model", "safetensors"]),
    "half a base": (in_model(lambda f: os.truncate(f / "model.safetensors", 999)), ["model", "safetensors"]),
    "a base with a number in words": (config(num_hidden_layers="two"), ["model", "config.json", "num_hidden_layers"]),
    "a base with code of its own": (OWN_CODE, ["auto_map"]),
    "a base without a tokenizer": (in_model(lambda f: [p.unlink() for p in f.glob("tokenizer*")]), ["tokenizer"]),
    "a session that is over before it begins": (setting("training.session_minutes", -1), ["training.session_minutes"]),
}


@pytest.mark.parametrize("mistake", TRAINING)
def test_training(workspace: Workspace, stages: Stages, mistake: str) -> None:
    """The run's folder is not created."""
    break_it, words = TRAINING[mistake]
    workspace.prepare_data()
    break_it(workspace)
    stages.check("train", words)
    assert not (workspace.folder / "results/mine/new").exists()


def test_at_least_thirty_mistakes_are_tried() -> None:
    assert len(MODELS) + len(TASKS) + len(TRAINING) >= 30
