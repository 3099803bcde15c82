"""Ninety-odd mistakes a user can make: each ends in one line that names the place and the mend, and spoils nothing."""

import hashlib
import importlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml

from loragrid import errors
from loragrid.errors import run_main

from loragrid.paths import ROOT
from loragrid.study.study_file import load_study

GOOD_ROWS = [
    {
        "conversations": [
            {"from": "human", "value": f"Say {n}"},
            {"from": "gpt", "value": f"{n}, number {n * 37 % 101}."},
        ]
    }
    for n in range(40)
]


class Desk:
    """A folder with a small good study in it, for a test to spoil one thing of."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = shutil.copytree(model, folder / "model")
        self.study = folder / "mine.yaml"
        settings = yaml.safe_load((ROOT / "config/studies/demo.yaml").read_text())
        settings["data"] |= {"source": {"path": "rows.json"}, "max_length_tokens": 128, "heldout_rows": 8}
        settings["models"] = {"toy": {"path": "model", "precision": "32bit", "chat_template": None}}
        settings["base_case"] = {"model": "toy", "learning_rate": 1.0e-2, "rank": 2, "batch": [2, 1], "seed": 1}
        settings["grid"] |= {"learning_rate": [1.0e-2], "rank": [2], "batch": [[2, 1]], "model": ["toy"], "seed": [1]}
        settings["training"]["budget"] = {"steps": 2}
        settings["scoring"] |= {"target": ["heldout_loss"], "retention": [], "qualitative": None, "limit": 4}
        self.settings = settings
        self.write_rows(GOOD_ROWS)
        self.write()
        (folder / "results/mine/train/old").mkdir(parents=True)
        (folder / "results/mine/train/old/record.json").write_text("kept")

    def write(self) -> None:
        self.study.write_text(yaml.safe_dump(self.settings, sort_keys=False))

    def write_rows(self, rows: object, name: str = "rows.json") -> None:
        text = rows if isinstance(rows, str) else json.dumps(rows)
        (self.folder / name).write_text(text)
        self.settings["data"]["source"] = {"path": name}

    def set(self, key: str, value: object) -> None:
        *parents, last = key.split(".")
        node = self.settings
        for part in parents:
            node = node[part]
        node[last] = value

    def digest(self) -> str:
        files = sorted(file for file in (self.folder / "results").rglob("*") if file.is_file())
        return hashlib.sha256(b"".join(str(file).encode() + file.read_bytes() for file in files)).hexdigest()


@pytest.fixture
def desk(tmp_path: Path, toy_llama: Path) -> Desk:
    return Desk(tmp_path, toy_llama)


def run_stage(stage: str, desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> tuple[int, str]:
    """Exit status and terminal output of a stage, run as its rule runs it, on the desk's study."""
    try:
        cell = load_study(str(desk.study)).cells[0]
        run, data, base = cell.run, cell.data, cell.base
    except Exception:
        run = data = base = "any"
    out = desk.folder / "results/mine/new"
    options = {
        "prepare_data": ["--data", data, "--out", str(out)],
        "train": ["--run", run, "--data", str(desk.folder / "data"), "--out", str(out)],
        "score": ["--subject", base, "--data", str(desk.folder / "data"), "--out", str(out)],
    }[stage]
    log = ["--log", str(desk.folder / "job.log")]
    monkeypatch.setattr(sys, "argv", [f"{stage}.py", "--study", str(desk.study), *options, *log])
    capfd.readouterr()
    with _descriptors_restored(), pytest.raises(SystemExit) as ended:
        run_main(importlib.import_module(stage).main)
    return ended.value.code, capfd.readouterr().err


def check(
    stage: str, desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, said: list[str]
) -> None:
    before = desk.digest()
    status, stderr = run_stage(stage, desk, monkeypatch, capfd)
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert status == 2, stderr
    assert len(lines) == 1 and lines[0].startswith("error: "), stderr
    assert said and [word for word in said if word not in lines[0]] == [], lines[0]
    assert MEND.search(lines[0]), f"no mend is given: {lines[0]}"
    assert desk.digest() == before


# What to do stands behind a colon or semicolon and begins with a verb, or asks what was meant.
MEND = re.compile(
    r"[:;] (convert|set|give|take|write|keep|lower|raise|check|mend|restore|fetch|use|delete|run|pip install|did you mean) ?"
)


def setting(key: str, value: object) -> Callable[[Desk], None]:
    def spoil(desk: Desk) -> None:
        desk.set(key, value)
        desk.write()

    return spoil


def study_text(change: Callable[[str], str]) -> Callable[[Desk], None]:
    return lambda desk: desk.study.write_text(change(desk.study.read_text()))


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
def test_a_study_file(desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, mistake: str) -> None:
    spoil, said = STUDIES[mistake]
    spoil(desk)
    check("prepare_data", desk, monkeypatch, capfd, said)


def rows(content: object, name: str = "rows.json") -> Callable[[Desk], None]:
    def spoil(desk: Desk) -> None:
        desk.write_rows(content, name)
        desk.write()

    return spoil


def binary(content: bytes, name: str) -> Callable[[Desk], None]:
    def spoil(desk: Desk) -> None:
        desk.write_rows("", name)
        (desk.folder / name).write_bytes(content)
        desk.write()

    return spoil


def turns(*pairs: tuple[object, object]) -> list[dict]:
    return [{"conversations": [{"from": who, "value": text} for who, text in pairs]}] * 20


ONE_ANSWER = [
    {"conversations": [row["conversations"][0], {"from": "gpt", "value": "The one answer there is."}]}
    for row in GOOD_ROWS
]
GOOD_LINES = "\n".join(json.dumps(row) for row in GOOD_ROWS)
DATA = {
    "half a file": (rows(json.dumps(GOOD_ROWS)[:-20]), ["rows.json"]),
    "an empty file": (rows(""), ["rows.json"]),
    "an empty list": (rows([]), ["rows.json", "no row"]),
    "a broken line": (rows(GOOD_LINES + "\n{half", "rows.jsonl"), ["rows.jsonl", "line 41"]),
    "no text": (binary(b"\xff\xfe\x00\x80" * 9, "rows.jsonl"), ["rows.jsonl"]),
    "a picture as Parquet": (binary(b"\x89PNG", "rows.parquet"), ["rows.parquet", "Parquet"]),
    "a kind not read": (rows("a,b\n1,2\n", "rows.csv"), ["rows.csv", ".csv"]),
    "rows that are numbers": (rows([1, 2, 3]), ["rows.json"]),
    "an unknown form": (rows([{"question": "a", "answer": "b"}] * 9), ["rows.json", "question"]),
    "two forms": (rows([*GOOD_ROWS[:9], {"instruction": "a", "input": "", "output": "b"}]), ["rows.json", "mixes"]),
    "empty replies": (rows(turns(("human", "a"), ("gpt", ""))), ["rows.json", "none of its 20 rows"]),
    "no replies": (rows(turns(("human", "a"))), ["rows.json", "none of its 20 rows"]),
    "unknown roles": (rows(turns(("man", "a"), ("machine", "b"))), ["rows.json", "none of its 20 rows"]),
    "replies that are numbers": (rows(turns(("human", "a"), ("gpt", 7))), ["rows.json", "none of its 20 rows"]),
    "one row": (rows(GOOD_ROWS[:1]), ["data", "a split needs at least two"]),
    "too few to hold out": (rows(GOOD_ROWS[:9]), ["data.heldout_rows", "lower it"]),
    "one answer": (rows(ONE_ANSWER), ["data.heldout_rows"]),
    "rows cut to nothing": (setting("data.max_length_tokens", 8), ["toy", "no row is left"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", DATA)
def test_a_data_file(desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, mistake: str) -> None:
    spoil, said = DATA[mistake]
    spoil(desk)
    check("prepare_data", desk, monkeypatch, capfd, said)


def in_model(change: Callable[[Path], object]) -> Callable[[Desk], None]:
    return lambda desk: change(desk.model)


def config(**changes: object) -> Callable[[Desk], None]:
    def change(folder: Path) -> None:
        value = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in value.items() if v is not None}))

    return in_model(change)


MODELS = {
    "no configuration": (in_model(lambda f: (f / "config.json").unlink()), ["config.json"]),
    "half a configuration": (in_model(lambda f: (f / "config.json").write_text("{")), ["config.json"]),
    "no model type": (config(model_type=None), ["config.json", "model_type"]),
    "an unknown model type": (config(model_type="nonsense"), ["model", "config.json", "nonsense"]),
    "code of its own": (config(auto_map={"AutoModelForCausalLM": "mine.Model"}), ["auto_map", "never"]),
    "no weights": (in_model(lambda f: (f / "model.safetensors").unlink()), ["safetensors"]),
    "pickled weights": (in_model(lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin")), ["pickled", "convert"]),
    "half the weights": (in_model(lambda f: os.truncate(f / "model.safetensors", 999)), ["safetensors"]),
    "weights of another shape": (config(hidden_size=64), ["model", "config.json"]),
    "heads that do not divide": (config(num_attention_heads=3), ["model", "config.json", "attention heads"]),
    "a number in words": (config(num_hidden_layers="two"), ["model", "config.json", "num_hidden_layers"]),
    "no key heads": (config(num_key_value_heads=0), ["model", "config.json", "ZeroDivisionError"]),
}  # fmt: skip
TOKENIZERS = {
    "no tokenizer": (in_model(lambda f: [p.unlink() for p in f.glob("tokenizer*")]), ["model", "tokenizer"]),
    "half a tokenizer": (in_model(lambda f: (f / "tokenizer.json").write_text('{"version": "1.0"')), ["tokenizer"]),
    "no chat template": (in_model(lambda f: (f / "chat_template.jinja").unlink()), ["chat_template", "chatml"]),
    "a template that is no Jinja": (
        in_model(lambda f: (f / "chat_template.jinja").write_text("{% for %}")),
        ["toy", "chat_template"],
    ),
    "a template that divides by zero": (
        in_model(lambda f: (f / "chat_template.jinja").write_text("{{ 1/0 }}")),
        ["toy", "chat_template"],
    ),
    "a template that prints no turns": (
        in_model(lambda f: (f / "chat_template.jinja").write_text("hello")),
        ["toy", "chat_template"],
    ),
}


@pytest.mark.parametrize("mistake", MODELS)
def test_a_model_folder(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, mistake: str
) -> None:
    spoil, said = MODELS[mistake]
    _prepare(desk)
    spoil(desk)
    check("score", desk, monkeypatch, capfd, said)


@pytest.mark.parametrize("mistake", TOKENIZERS)
def test_a_tokenizer(desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, mistake: str) -> None:
    spoil, said = TOKENIZERS[mistake]
    spoil(desk)
    check("prepare_data", desk, monkeypatch, capfd, said)


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


def task(text: str | None = None, items: str = '{"q": "x"}\n', **changes: object) -> Callable[[Desk], None]:
    def spoil(desk: Desk) -> None:
        (desk.folder / "items.jsonl").write_text(items)
        (desk.folder / "task.yaml").write_text(text if text is not None else yaml.safe_dump(TASK | changes))
        desk.set("scoring.retention", ["task.yaml"])
        desk.write()

    return spoil


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
def test_a_task_file(desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, mistake: str) -> None:
    spoil, said = TASKS[mistake]
    _prepare(desk)
    spoil(desk)
    check("score", desk, monkeypatch, capfd, said)


def in_data(name: str, change: Callable[[Path], object]) -> Callable[[Desk], None]:
    return lambda desk: change(desk.folder / "data" / name)


TRAINING = {
    "no data": (lambda desk: shutil.rmtree(desk.folder / "data"), ["card.json"]),
    "no card": (in_data("card.json", lambda f: f.unlink()), ["card.json"]),
    "half a card": (in_data("card.json", lambda f: f.write_text("{")), ["card.json"]),
    "a card that is a list": (in_data("card.json", lambda f: f.write_text("[]")), ["card.json"]),
    "a card of other rows": (
        in_data("card.json", lambda f: f.write_text(json.dumps(json.loads(f.read_text()) | {"fingerprint": "x"}))),
        ["train.parquet", "fingerprint"],
    ),
    "no rows": (in_data("train.parquet", lambda f: f.unlink()), ["train.parquet"]),
    "half the rows": (in_data("heldout.parquet", lambda f: os.truncate(f, 99)), ["heldout.parquet"]),
    "a library that is not installed": (setting("training.report_to", "trackio"), ["training.report_to", "trackio"]),
    "a precision that no CPU trains in": (setting("training.compute_dtype", "fp16"), ["training.compute_dtype"]),
    "no base": (in_model(lambda f: (f / "model.safetensors").unlink()), ["model", "safetensors"]),
    "half a base": (in_model(lambda f: os.truncate(f / "model.safetensors", 999)), ["model", "safetensors"]),
    "a base with a number in words": (config(num_hidden_layers="two"), ["model", "config.json", "num_hidden_layers"]),
    "a base with code of its own": (config(auto_map={"AutoModelForCausalLM": "mine.Model"}), ["auto_map"]),
    "a base without a tokenizer": (in_model(lambda f: [p.unlink() for p in f.glob("tokenizer*")]), ["tokenizer"]),
    "a session that is over before it begins": (setting("training.session_minutes", -1), ["training.session_minutes"]),
}


@pytest.mark.parametrize("mistake", TRAINING)
def test_training(desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, mistake: str) -> None:
    """The run's folder is not even made."""
    spoil, said = TRAINING[mistake]
    _prepare(desk)
    spoil(desk)
    check("train", desk, monkeypatch, capfd, said)
    assert not (desk.folder / "results/mine/new").exists()


def test_there_are_sixty() -> None:
    assert len(STUDIES) + len(DATA) + len(MODELS) + len(TOKENIZERS) + len(TASKS) + len(TRAINING) >= 60


@contextmanager
def _descriptors_restored() -> Iterator[None]:
    """A stage given `--log` points descriptors 1 and 2 at that file for good; tests go on."""
    saved = [os.dup(1), os.dup(2)]
    try:
        # pytest's own streams do not write through the descriptors, as a process's do.
        with open(1, "w", closefd=False) as out, open(2, "w", closefd=False) as err:
            with redirect_stdout(out), redirect_stderr(err):
                yield
    finally:
        for number, copy in enumerate(saved, start=1):
            os.dup2(copy, number)
            os.close(copy)
        errors._terminal = None


def _prepare(desk: Desk) -> None:
    """Tokenised rows of the good study, since scoring and training look at them first."""
    from prepare_data import prepare_data

    study = load_study(str(desk.study))
    prepare_data(study=study, data_id=study.cells[0].data, out=desk.folder / "data")
