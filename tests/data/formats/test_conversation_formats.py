"""Conversation formats: how rows are read, and every reason for which a row is refused."""

import json

import pytest

from loragrid.data.formats.conversation_formats import UnusableRow, detect_format, to_conversation
from loragrid.data.formats.row_format import RowFormat
from loragrid.errors import UserError

HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}
SHAREGPT = RowFormat("sharegpt", "turns", ("spoken", "from", "value"))
ALPACA = RowFormat("alpaca", "exchange", ("instruction", "output"))

REFUSED = {
    "row is not an object": [None, 3, "text", ["a"]],
    "no conversation in the row": [{}, {"conversations": []}, {"conversations": None}, {"conversations": "Hi"}],
    "not text": [
        {"conversations": [HUMAN, {"from": "gpt", "value": 3}]},
        {"conversations": [{"from": "human", "value": {"a": 1}}, GPT]},
        {"conversations": [HUMAN, None]},
        {"conversations": ["Hi", "Hello"]},
        {"conversations": [HUMAN, {"from": "gpt", "value": "\ud800"}]},
        {"conversations": [HUMAN, {"from": "gpt", "value": [{"type": "image", "url": "x"}]}]},
    ],
    "tool call cannot be read": [{"conversations": [HUMAN, {"from": "gpt", "value": "", "tool_calls": "x"}]}],
    'unknown role "narrator"': [
        {"conversations": [HUMAN, {"from": "narrator", "value": "x"}]},
        {"conversations": [HUMAN, {"from": " narrator ", "value": "x"}]},
    ],
    "turn without a role": [
        {"conversations": [HUMAN, {"from": None, "value": "x"}]},
        {"conversations": [HUMAN, {"value": "x"}]},
        {"conversations": [HUMAN, {"from": ["gpt"], "value": "x"}]},
    ],
    "empty reply": [
        {"conversations": [HUMAN, {"from": "gpt", "value": ""}, HUMAN, GPT]},
        {"conversations": [HUMAN, {"from": "gpt", "value": " \n"}]},
        {"conversations": [HUMAN, {"from": "gpt", "value": None}]},
        {"conversations": [HUMAN, {"from": "gpt"}]},
    ],
    "missing reply": [{"conversations": [HUMAN, HUMAN, GPT]}],
    "empty prompt": [{"conversations": [{"from": "human", "value": ""}, GPT]}],
    "no assistant turn": [{"conversations": [HUMAN]}, {"conversations": [{"from": "system", "value": ""}]}],
    "does not start with a user turn": [
        {"conversations": [GPT, HUMAN, GPT]},
        {"conversations": [{"from": "system", "value": "s"}, GPT]},
        {"conversations": [{"from": "observation", "value": "s"}, GPT]},
    ],
    "tools cannot be read": [
        {"conversations": [HUMAN, GPT], "tools": "[{"},
        {"conversations": [HUMAN, GPT], "tools": {"a": 1}},
        {"conversations": [HUMAN, GPT], "tools": ["x"]},
    ],
    "row of another form: messages": [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    ],
    "row of another form: alpaca": [{"instruction": "Hi", "output": "Hello"}],
    "row of another form: pairs": [{"conversations": [["Hi", "Hello"]]}],
}


@pytest.mark.parametrize(("reason", "row"), [(reason, row) for reason, rows in REFUSED.items() for row in rows])
def test_an_unusable_row_has_its_reason(reason, row):
    with pytest.raises(UnusableRow) as caught:
        to_conversation(row, SHAREGPT)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("reason", "row"),
    [
        ("empty reply", {"instruction": "a", "input": "", "output": ""}),
        ("empty reply", {"instruction": "a", "input": "", "output": None}),
        ("empty reply", {"instruction": "a", "input": "", "output": " \u200b\n\ufeff"}),  # nothing that shows
        ("empty prompt", {"instruction": "", "input": " ", "output": "x"}),
        ("not text", {"instruction": "a", "input": 3, "output": "x"}),
        ("not text", {"instruction": "a", "input": "", "output": 4.5}),
        ("not text", {"instruction": "a", "input": "", "output": "x", "history": [["a"]]}),
        ("row of another form: question/answer", {"instruction": None, "question": "a", "answer": "x"}),
    ],
)
def test_an_unusable_alpaca_row_has_its_reason(reason, row):
    with pytest.raises(UnusableRow) as caught:
        to_conversation(row, ALPACA)
    assert str(caught.value) == reason


def test_sharegpt_with_tools_and_a_cut_end():
    rows = [
        ("system", "s"),
        ("human", "q"),
        ("function_call", '{"name": "f", "arguments": {"n": 1}}'),
        ("observation", ""),
        ("GPT", "r"),
        ("human", "bye"),
    ]
    row = {"conversations": [{"from": r, "value": v} for r, v in rows], "tools": json.dumps([{"name": "f"}])}
    conversation = to_conversation(row, SHAREGPT)
    assert [m["role"] for m in conversation.messages] == ["system", "user", "assistant", "tool", "assistant"]
    call = {"type": "function", "function": {"name": "f", "arguments": {"n": 1}}}
    assert conversation.messages[2] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert conversation.cut_after_last_reply and conversation.unused == () and conversation.notes == ()
    assert conversation.tools == [{"type": "function", "function": {"name": "f"}}]


def test_messages_with_parts():
    row = {
        "messages": [
            {"role": "system", "content": None},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": ["f", {"type": "text", "text": "our", "annotations": ["x"]}]},
        ]
    }
    form = detect_format([row], source_name="x")
    conversation = to_conversation(row, form)
    assert form.name == "messages" and [m["content"] for m in conversation.messages] == ["ab", "four"]
    assert conversation.unused == ("messages[].content[].annotations",)


def test_alpaca_with_input_system_and_history():
    row = {"instruction": "Add", "input": "1 2", "output": "3", "system": "s", "history": [["q", "r"]]}
    found = [(m["role"], m["content"]) for m in to_conversation(row, ALPACA).messages]
    assert found == [("system", "s"), ("user", "q"), ("assistant", "r"), ("user", "Add\n\n1 2"), ("assistant", "3")]
    assert to_conversation({"instruction": "Add", "input": None, "output": "3"}, ALPACA).messages[0]["content"] == "Add"


def test_the_format_is_detected_or_the_keys_are_named():
    sharegpt, messages = {"conversations": [HUMAN, GPT]}, {"messages": [{"role": "user", "content": "x"}]}
    assert detect_format([3, {}, sharegpt], source_name="f").name == "sharegpt"
    assert detect_format([{"conversations": messages["messages"]}], source_name="f").name == "messages"
    assert detect_format([{"instruction": "a", "output": "b"}], source_name="f").name == "alpaca"
    with pytest.raises(
        UserError, match=r"f: the source mixes the formats messages and sharegpt \(keys seen: conversations, messages\)"
    ):
        detect_format([sharegpt, messages], source_name="f")
    with pytest.raises(UserError, match=r"f: the format is unknown \(keys seen: antwort, frage\)\. Fix: name the col"):
        detect_format([{"frage": "a", "antwort": "b"}], source_name="f")
    with pytest.raises(UserError, match="none of its first rows is an object"):
        detect_format([1, "x"], source_name="f")


def test_an_instruction_may_be_missing_from_some_rows():
    rows = [{"instruction": None, "input": "x", "output": "y"}, {"instruction": "a", "input": "", "output": "b"}]
    rows.append({"input": "x", "output": "y"})
    assert detect_format(rows, source_name="f").name == "alpaca"
    assert detect_format(rows[2:], source_name="f").name == "input/output"
