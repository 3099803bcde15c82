"""Calls and results that are parts of a turn's content, and results that are objects."""

import json

import pytest

from loragrid.data.formats.conversation_formats import UnusableRow, detect_format, to_conversation

USE = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"town": "Ulm"}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "12 °C"}
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "Twelve degrees."}]}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Ulm"}}, "id": "t1"}


def read(*turns, **fields):
    row = {"messages": [{"role": "user", "content": "Weather in Ulm?"}, *turns]} | fields
    return to_conversation(row, detect_format([row], source_name="f"))


def test_calls_and_results_in_parts_are_calls_and_results():
    call = {"role": "assistant", "content": [{"type": "text", "text": "I look."}, USE]}
    back = {"role": "user", "content": [RESULT, {"type": "text", "text": "And tomorrow?"}]}
    conversation = read(call, back, ANSWER)
    assert conversation.messages[1:] == [
        {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
        {"role": "tool", "content": "12 °C", "tool_call_id": "t1"},
        {"role": "user", "content": "And tomorrow?"},
        {"role": "assistant", "content": "Twelve degrees."},
    ]
    assert conversation.unused == ()


def test_a_reply_may_call_alone_and_a_turn_hold_results_alone():
    second = USE | {"id": "t2"}
    results = {
        "role": "user",
        "content": [RESULT, RESULT | {"tool_use_id": "t2", "content": [{"type": "text", "text": "x"}]}],
    }
    conversation = read({"role": "assistant", "content": [USE, second]}, results, ANSWER)
    assert [call["id"] for call in conversation.messages[1]["tool_calls"]] == ["t1", "t2"]
    assert [message["role"] for message in conversation.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert conversation.messages[3]["content"] == "x"


def test_what_parts_hold_besides_is_counted():
    use = USE | {"cache_control": {"type": "ephemeral"}}
    conversation = read(
        {"role": "assistant", "content": [use]}, {"role": "user", "content": [RESULT | {"is_error": True}]}, ANSWER
    )
    assert any("cache_control" in name for name in conversation.unused)
    assert any("is_error" in name for name in conversation.unused)
    both = read(
        {"role": "assistant", "content": [USE], "tool_calls": [CALL]}, {"role": "user", "content": [RESULT]}, ANSWER
    )
    assert both.messages[1]["tool_calls"] == [CALL] and "messages[].content[].tool_use" in both.unused


@pytest.mark.parametrize("content", [{"degrees": 12}, [{"degrees": 12}], [], {}])
def test_a_result_that_is_an_object_is_its_json(content):
    conversation = read(
        {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": content}, ANSWER
    )
    assert json.loads(conversation.messages[2]["content"]) == content


def test_input_schemas_are_parameters():
    tool = {"name": "weather", "description": "d", "input_schema": {"type": "object"}}
    (read_tool,) = read(ANSWER, tools=[tool]).tools
    assert read_tool["function"] == {"name": "weather", "description": "d", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": [USE | {"name": 3}]},
        {"role": "assistant", "content": [USE | {"input": ["x"]}]},
        {"role": "user", "content": [RESULT | {"tool_use_id": 5}]},
        {"role": "user", "content": [{"type": "image", "source": {}}]},
    ],
)
def test_parts_that_cannot_be_read_make_the_row_unusable(turn):
    with pytest.raises(UnusableRow):
        read(turn, ANSWER)
