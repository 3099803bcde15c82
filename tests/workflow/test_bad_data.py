"""Mistakes in data files and tokenizers: each ends in one line with the file and the fix."""

import json
from pathlib import Path

import pytest

from tests.fixtures.bad_input import VALID_ROWS, Break, Stages, Workspace, in_model, setting


def rows(content: object, name: str = "rows.json") -> Break:
    def change(workspace: Workspace) -> None:
        workspace.write_rows(content, name)
        workspace.write()

    return change


def binary(content: bytes, name: str) -> Break:
    def change(workspace: Workspace) -> None:
        workspace.write_rows("", name)
        (workspace.folder / name).write_bytes(content)
        workspace.write()

    return change


def turns(*pairs: tuple[object, object]) -> list[dict]:
    return [{"conversations": [{"from": who, "value": text} for who, text in pairs]}] * 20


ONE_ANSWER = [
    {"conversations": [row["conversations"][0], {"from": "gpt", "value": "The one answer there is."}]}
    for row in VALID_ROWS
]
VALID_LINES = "\n".join(json.dumps(row) for row in VALID_ROWS)
DATA = {
    "half a file": (rows(json.dumps(VALID_ROWS)[:-20]), ["rows.json"]),
    "an empty file": (rows(""), ["rows.json"]),
    "an empty list": (rows([]), ["rows.json", "no row"]),
    "a broken line": (rows(VALID_LINES + "\n{half", "rows.jsonl"), ["rows.jsonl", "line 41"]),
    "no text": (binary(b"\xff\xfe\x00\x80" * 9, "rows.jsonl"), ["rows.jsonl"]),
    "a picture as Parquet": (binary(b"\x89PNG", "rows.parquet"), ["rows.parquet", "Parquet"]),
    "a kind not read": (rows("<a/>", "rows.xml"), ["rows.xml", ".xml"]),
    "rows that are numbers": (rows([1, 2, 3]), ["rows.json"]),
    "an unknown form": (rows([{"frage": "a", "antwort": "b"}] * 9), ["rows.json", "frage"]),
    "two forms": (rows([*VALID_ROWS[:9], {"instruction": "a", "input": "", "output": "b"}]), ["rows.json", "mixes"]),
    "empty replies": (rows(turns(("human", "a"), ("gpt", ""))), ["rows.json", "none of its 20 rows"]),
    "no replies": (rows(turns(("human", "a"))), ["rows.json", "none of its 20 rows"]),
    "unknown roles": (rows(turns(("man", "a"), ("machine", "b"))), ["rows.json", "none of its 20 rows"]),
    "replies that are numbers": (rows(turns(("human", "a"), ("gpt", 7))), ["rows.json", "none of its 20 rows"]),
    "one row": (rows(VALID_ROWS[:1]), ["heldout.set", "a split needs at least two"]),
    "too few to hold out": (rows(VALID_ROWS[:9]), ["heldout.rows", "lower it"]),
    "one answer": (rows(ONE_ANSWER), ["heldout.rows"]),
    "rows cut to nothing": (setting("base_case.max_length_tokens", 8), ["toy", "no row is left"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", DATA)
def test_a_data_file(workspace: Workspace, stages: Stages, mistake: str) -> None:
    break_it, words = DATA[mistake]
    break_it(workspace)
    stages.check("prepare_data", words)


def more_tokens(folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens(["number"])
    tokenizer.save_pretrained(folder)


TOKENIZERS = {
    "tokens that the model lacks": (in_model(more_tokens), ["toy", "its tokenizer gives token id 263", "has 263 tokens"]),
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


@pytest.mark.parametrize("mistake", TOKENIZERS)
def test_a_tokenizer(workspace: Workspace, stages: Stages, mistake: str) -> None:
    break_it, words = TOKENIZERS[mistake]
    break_it(workspace)
    stages.check("prepare_data", words)


def test_at_least_twenty_mistakes_are_tried() -> None:
    assert len(DATA) + len(TOKENIZERS) >= 20
