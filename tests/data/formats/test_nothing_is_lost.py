"""Whatever the form of a row: each of its texts is in the conversation, or under a field or reason that is counted."""

import json
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import Table, parquet

from loragrid.data.formats.conversation_formats import UnusableRow, detect_format, to_conversation
from loragrid.data.reading.sources import open_source
from loragrid.data.row_keys import row_keys
from loragrid.study.sections import DataSource

USERS = ["user", "Human", " prompter ", "customer"]
MODELS = ["assistant", "GPT ", "chatgpt", "bing", "Bard", "bot", "model", "ai"]
EXTRAS = [
    "id",
    "refusal",
    "meta",
    "text",
    "name",
    "reasoning",
    "thinking",
    "label",
    "note",
    "train",
    "weight",
    "tools_used",
]


class Rows:
    """Draws rows of every form, in which each text occurs once."""

    def __init__(self, rng: random.Random, noise: list[str]) -> None:
        self.rng, self.noise = rng, noise
        self.count = 0

    def text(self) -> str:
        self.count += 1
        return f"t{self.count}é {self.rng.choice(self.noise)}."

    def extras(self, share: float) -> dict[str, Any]:
        names = [name for name in EXTRAS if self.rng.random() < share]
        return {name: self.rng.choice([self.text(), [self.text()], {"deep": self.text()}, None, ""]) for name in names}

    def turns(self) -> list[tuple[str, str]]:
        turns = []
        for _ in range(self.rng.randint(1, 3)):
            turns += [(self.rng.choice(USERS), self.text()), (self.rng.choice(MODELS), self.text())]
        if self.rng.random() < 0.3:
            turns.insert(0, ("system", self.text()))
        return turns

    def content(self, text: str) -> Any:
        if self.rng.random() < 0.2:
            return [{"type": "text", "text": text} | self.extras(0.05)]
        return text

    def spoken(self) -> list[dict[str, Any]]:
        role_key, text_key = self.rng.choice(
            [("role", "content"), ("from", "value"), ("role", "value"), ("speaker", "text"), ("from", "content")]
        )
        found = []
        for name, text in self.turns():
            turn = {key: value for key, value in self.extras(0.1).items() if key not in (role_key, text_key)}
            if name in MODELS and self.rng.random() < 0.3:
                call = {"name": "f", "arguments": {"x": self.text(), "y": None}} | self.extras(0.05)
                turn["tool_calls"] = [self.rng.choice([call, {"id": self.text(), "function": call}])]
            found.append({role_key: name, text_key: self.content(text)} | turn)
        return found

    def listed(self) -> Any:
        turns = self.turns()
        shape = self.rng.choice(["spoken", "keyed", "pairs", "named"])
        if shape == "spoken":
            found = self.spoken()
        elif shape == "keyed":
            found = [{name: text} | self.extras(0.05) for name, text in turns]
        elif shape == "named":
            found = [[name, text] for name, text in turns]
        else:
            said = [text for name, text in turns if name != "system"]
            found = [list(pair) for pair in zip(said[::2], said[1::2])]
        return json.dumps(found) if self.rng.random() < 0.2 else found

    def row(self) -> dict[str, Any]:
        row = self.extras(0.15)
        kind = self.rng.choice(["turns", "turns", "exchange", "preference", "text"])
        if kind == "turns":
            row[self.rng.choice("messages conversations conversation dialog chat".split())] = self.listed()
        elif kind == "exchange":
            names = ["instruction/output", "prompt/completion", "Question/Answer", "query/response", "input/output"]
            prompt, reply = self.rng.choice(names).split("/")
            row |= {prompt: self.text(), reply: self.text()}
            if self.rng.random() < 0.3:
                row |= {"input": self.text(), "history": [[self.text(), self.text()]]}
        elif kind == "preference":
            row |= {"prompt": self.text(), "chosen": self.text(), "rejected": self.text()}
        else:
            row |= {"text": self.text()}
        if self.rng.random() < 0.3:
            row[self.rng.choice(["system", "system_prompt"])] = self.text()
        return row


def texts_of(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(Name of the field, text) of every text in a row."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from texts_of(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item, f"{path}[]")
    elif isinstance(value, str) and value[:1] in "[{" and "t" in value:
        yield from texts_of(json.loads(value), path)
    elif isinstance(value, str) and value:
        yield path.removeprefix("."), value


def is_counted(path: str, unused: tuple[str, ...]) -> bool:
    return any(path == name or path.startswith((f"{name}.", f"{name}[")) for name in unused)


NOISE = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\"'{}[]<>|"), max_size=12)
NAMES = {*USERS, *MODELS, "system", "text", "f"}


@settings(max_examples=200)
@given(rng=st.randoms(use_true_random=False), noise=st.lists(NOISE, min_size=1, max_size=4))
def test_every_text_is_in_the_conversation_or_counted(rng, noise):
    row = Rows(rng, noise).row()
    try:
        conversation = to_conversation(row, detect_format([row], source_name="f"))
    except UnusableRow as reason:
        assert str(reason)
        return
    kept = json.dumps([conversation.messages, conversation.tools], ensure_ascii=False)
    for path, text in texts_of(row):
        inside = json.dumps(text, ensure_ascii=False)[1:-1] in kept
        assert inside or text in NAMES or is_counted(path, conversation.unused), (path, text, conversation)
    replies = [message for message in conversation.messages if message["role"] == "assistant"]
    assert replies and conversation.messages[-1] == replies[-1]


def test_the_same_rows_as_parquet_and_jsonl_are_the_same_conversations(tmp_path):
    calls = [{"city": "Bern"}, {"plot": 3, "kind": {"tree": "elm"}}, {}, {"plot": 4}]
    rows = []
    for number, arguments in enumerate(calls):
        turns = [
            {"role": "user", "content": f"q{number}"},
            {
                "role": "assistant",
                "tool_calls": [{"type": "function", "function": {"name": f"f{number}", "arguments": arguments}}],
            },
            {"role": "tool", "content": "", "name": "f"},
            {"role": "assistant", "content": f"a{number}"} | ({"weight": 0} if number == 1 else {}),
        ]
        tools = [
            {
                "type": "function",
                "function": {"name": "f", "parameters": {"properties": {f"p{number}": {"type": "string"}}}},
            }
        ]
        rows.append({"messages": turns, "tools": tools} | ({"id": number + 5} if number % 2 == 0 else {}))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = []
    for name in ("rows.jsonl", "rows.parquet"):
        source = open_source(DataSource(path=str(tmp_path / name)), folder=tmp_path)
        numbered = list(source.rows())
        form = detect_format([row for _, row in numbered], source_name=name)
        found.append([to_conversation(row, form) for _, row in numbered])
    assert found[0] == found[1]
    assert [row_keys(1, each).digest for each in found[0]] == [row_keys(1, each).digest for each in found[1]]
    assert found[0][0].messages[1]["tool_calls"][0]["function"] == {"name": "f0", "arguments": {"city": "Bern"}}
    assert found[1][1].untrained == {3} and found[1][2].unused == ("id",)
