"""Fields of turns and rows beside the text: tool calls, marks, thoughts, system prompts, speakers, and what is not read."""

from datetime import date

import pytest

from loragrid.data.formats.conversation import reply_text, whole_text
from loragrid.data.formats.conversation_formats import UnusableRow, detect_format, to_conversation

USER, REPLY = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"n": 1}}}


def read(row, **study):
    return to_conversation(row, detect_format([row], source_name="f", **study))


def reply(**fields):
    """The conversation of a question and a reply with these fields."""
    return read({"messages": [USER, REPLY | fields]})


@pytest.mark.parametrize(
    "calls",
    [
        {"tool_calls": [CALL]},
        {"tool_calls": [{"name": "f", "arguments": '{"n": 1}'}]},
        {"tool_calls": {"function": {"name": "f", "parameters": {"n": 1}}}},
        {"tool_calls": '[{"name": "f", "arguments": {"n": 1}}]'},
        {"tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"n": 1, "unit": None}}}]},
        {"function_call": {"name": "f", "arguments": '{"n": 1}'}},
    ],
)
def test_calls_of_any_form_are_kept_beside_the_text(calls):
    conversation = reply(**calls)
    assert conversation.messages[1] == {"role": "assistant", "content": "a", "tool_calls": [CALL]}
    assert conversation.unused == ()
    assert reply(content=None, **calls).messages[1]["content"] == ""
    assert reply_text(conversation.messages[1]) == 'a\n{"name": "f", "arguments": {"n": 1}}'


def test_calls_keep_their_ids_and_true_nulls_and_say_what_is_not_read():
    calls = [{"id": "c0", "index": 3, "function": {"name": "f", "arguments": '{"unit": null}', "strict": True}}]
    conversation = read(
        {
            "messages": [
                USER,
                REPLY | {"tool_calls": calls},
                {"role": "tool", "content": "4", "tool_call_id": "c0", "name": "f"},
                REPLY,
            ]
        }
    )
    assert conversation.messages[1]["tool_calls"] == [
        {"type": "function", "function": {"name": "f", "arguments": {"unit": None}}, "id": "c0"}
    ]
    assert conversation.messages[2] == {"role": "tool", "content": "4", "tool_call_id": "c0", "name": "f"}
    assert conversation.unused == ("messages[].tool_calls[].function.strict", "messages[].tool_calls[].index")
    assert (
        reply(tool_calls=[{"name": "f", "arguments": ""}]).messages[1]["tool_calls"][0]["function"]["arguments"] == {}
    )


@pytest.mark.parametrize(
    "calls",
    [
        "x",
        [3],
        [{"arguments": {}}],
        [{"name": "f", "arguments": "{"}],
        [{"name": "f", "arguments": "[1]"}],
        [{"name": "\ud800"}],
    ],
)
def test_calls_that_cannot_be_read_have_a_reason(calls):
    with pytest.raises(UnusableRow, match="tool call cannot be read"):
        reply(tool_calls=calls)


@pytest.mark.parametrize(
    "text", ['{"name": "f", "arguments": {"n": 1', "I call f", '{"name": "f", "thought": "x"}', "[]"]
)
def test_a_call_turn_that_is_no_call_stays_text(text):
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": text}]}
    assert read(row).messages[1] == {"role": "assistant", "content": text}


def test_values_that_json_cannot_hold_make_a_row_unusable():
    day = {"name": "f", "arguments": {"day": date(2026, 1, 2)}, "parameters": {"day": date(2026, 1, 2)}}
    with pytest.raises(UnusableRow, match="tool call cannot be read"):
        reply(tool_calls=[day])
    with pytest.raises(UnusableRow, match="tools cannot be read"):
        read({"messages": [USER, REPLY], "tools": [day]})
    deep = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(UnusableRow, match="nested too deeply"):
        to_conversation({"messages": deep}, detect_format([{"messages": [USER, REPLY]}], source_name="f"))
    assert detect_format([{"messages": deep}, {"messages": [USER, REPLY]}], source_name="f").name == "messages"


def test_functions_are_tools_and_tools_come_first():
    assert read({"messages": [USER, REPLY], "functions": [{"name": "f"}]}).tools == [
        {"type": "function", "function": {"name": "f"}}
    ]
    both = read({"messages": [USER, REPLY], "functions": [{"name": "f"}], "tools": '[{"name": "g", "default": null}]'})
    assert both.tools == [{"type": "function", "function": {"name": "g", "default": None}}]
    assert both.unused == ("functions",)


OFF = [("weight", 0), ("weight", 0.0), ("weight", "0"), ("train", False), ("train", "false"), ("training", False)]
OFF += [("loss", False), ("loss_weight", 0), ("masked", True), ("masked", "true"), ("masked", 1)]
OFF += [
    ("loss_mask", 0),
    ("Train_On_Turn", False),
    ("trainable", "off"),
    ("is_masked", True),
    ("weight", -1),
    ("Weight", "0.0"),
]
ON = [("weight", 1), ("train", True), ("masked", False), ("loss", "true"), ("weight", "1.0"), ("training", 1)]


@pytest.mark.parametrize(("key", "value"), OFF)
def test_marked_replies_are_not_trained(key, value):
    conversation = read({"messages": [USER, REPLY | {key: value}, USER, REPLY]})
    assert (conversation.untrained, conversation.unused, conversation.notes) == ({1}, (), ())
    shifted = read({"system": "s", "messages": [USER, REPLY | {key: value}, USER, REPLY]})
    assert shifted.untrained == {2} and shifted.messages[2]["role"] == "assistant"
    for row in ({"messages": [USER, REPLY | {key: value}]}, {"messages": [USER, REPLY], key: value}):
        with pytest.raises(UnusableRow, match="every reply is marked not to train on"):
            read(row)


@pytest.mark.parametrize(("key", "value"), ON)
def test_replies_marked_to_train_are_trained(key, value):
    for row in ({"messages": [USER, REPLY | {key: value}]}, {"messages": [USER, REPLY], key: value}):
        conversation = read(row)
        assert (conversation.untrained, conversation.unused, conversation.notes) == (frozenset(), (), ())


def test_marks_that_are_not_followed_are_said():
    assert reply(weight=0.5).notes == ("part_weight",) and reply(weight=0.5).untrained == frozenset()
    assert reply(train="some words").unused == ("messages[].train",)
    assert read({"messages": [USER, REPLY], "loss": 1.7}).unused == ("loss",)
    marked = read({"messages": [USER | {"train": True}, REPLY]})
    assert marked.notes == ("marked_prompt",) and marked.unused == ()
    assert read({"messages": [USER | {"weight": 0}, REPLY]}).notes == ()
    assert read({"messages": [USER, REPLY | {"weight": 1, "train": False}, USER, REPLY]}).untrained == {1}
    assert reply(weight=float("nan")).unused == ("messages[].weight",)


def test_a_row_s_list_of_marks_is_that_of_its_turns_or_replies():
    talk = [USER, REPLY, USER, REPLY]
    for marks, untrained in {(0, 0, 0, 1): {1}, (0, 1): {1}, ("1", False): {3}, (1, 1): set()}.items():
        conversation = read({"messages": talk, "loss_mask": list(marks)})
        assert (conversation.untrained, conversation.unused) == (untrained, ())
    assert read({"messages": talk, "masked": [False, True], "system": "s"}).untrained == {4}
    for marks in ([0, 1, 1], [0, "some words"], [[0], [1]]):
        assert read({"messages": talk, "loss_mask": marks}).unused == ("loss_mask",)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("System Prompt", "s"),
        ("systemPrompt", "s"),
        ("system_message", "s"),
        ("sys-prompt", "s"),
        ("system", ["s"]),
        ("system", [{"type": "text", "text": "s"}]),
        ("system", {"role": "system", "content": "s"}),
    ],
)
def test_system_columns_of_any_name_and_form(column, value):
    conversation = read({column: value, "messages": [USER, REPLY]})
    assert conversation.messages[0] == {"role": "system", "content": "s"} and conversation.unused == ()


def test_what_is_no_system_prompt_is_counted():
    for value in (5, [{"image": "x"}], {"name": "x"}):
        assert read({"system": value, "messages": [USER, REPLY]}).unused == ("system",)
    assert read({"system": {"content": "s", "id": 1}, "messages": [USER, REPLY]}).unused == ("system.id",)
    parts = [{"type": "text", "text": "s", "cached": True}]
    assert read({"system": parts, "messages": [USER, REPLY]}).unused == ("system[].cached",)


def test_tools_without_a_list_and_as_texts():
    wrapped = [{"type": "function", "function": {"name": "f"}}]
    for tools in ({"name": "f"}, ['{"name": "f"}'], '{"name": "f"}'):
        assert read({"tools": tools, "messages": [USER, REPLY]}).tools == wrapped


def test_speakers_with_other_blanks_and_as_numbers():
    turns = [{"role": "\u00a0User：", "content": "q"}, {"role": "\ufeffAssistant", "content": "a"}]
    assert read({"messages": turns}).messages == [USER, REPLY]
    turns = [{"role": 0, "content": "q"}, {"role": 1, "content": "a"}]
    assert read({"messages": turns}, roles={"0": "user", "1": "assistant"}).messages == [USER, REPLY]
    with pytest.raises(UnusableRow, match='unknown role "0"'):
        read({"messages": turns})


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "hm"},
        {"thinking": "hm"},
        {"reasoning": "hm"},
        {"reasoning": [{"type": "text", "text": "h"}, "m"]},
        {"thinking": [{"type": "thinking", "thinking": "hm"}]},
        {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]},
    ],
)
def test_thoughts_by_any_name(fields):
    conversation = reply(**fields)
    assert conversation.messages[1] == {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert conversation.unused == () and whole_text(conversation.messages[1]) == "hm\na"


def test_thoughts_that_are_not_read_are_counted():
    assert reply(reasoning_content="hm", reasoning="so").unused == ("messages[].reasoning",)
    assert (
        reply(thinking=True).unused == ("messages[].thinking",)
        and "reasoning_content" not in reply(thinking="").messages[1]
    )
    assert read({"messages": [USER | {"thinking": "x"}, REPLY]}).unused == ("messages[].thinking",)
    with pytest.raises(UnusableRow, match="empty reply"):
        reply(content="", thinking="hm")


def test_a_system_prompt_of_its_own_opens_the_conversation_unless_a_turn_says_another():
    turn = {"role": "system", "content": "t"}
    for key in ("system", "system_prompt", "System"):
        assert read({key: "s", "messages": [USER, REPLY]}).messages[0] == {"role": "system", "content": "s"}
    both = read({"system": "s", "messages": [turn, USER, REPLY]})
    assert [m["content"] for m in both.messages] == ["t", "q", "a"]
    assert (both.notes, both.unused) == (("system_turn_wins",), ("system",))
    same = read({"system": "t", "messages": [turn, USER, REPLY]})
    assert (same.notes, same.unused) == ((), ())
    empty = read({"system": "s", "messages": [turn | {"content": ""}, USER, REPLY]})
    assert [m["content"] for m in empty.messages] == ["s", "q", "a"]
    assert read({"system": {"a": 1}, "messages": [USER, REPLY]}).unused == ("system",)


@pytest.mark.parametrize("name", "chatgpt Bing BARD bot model ai claude gemini chatbot GPT assistant agent".split())
def test_usual_names_of_the_model(name):
    for user in ("human", "USER: ", "Prompter", "customer"):
        row = {"conversations": [{"from": user, "value": "q"}, {"from": f" {name} ", "value": "a"}]}
        assert [m["role"] for m in read(row).messages] == ["user", "assistant"]


def test_an_instructor_is_whom_the_others_are_not():
    taught = {"conversations": [{"from": "student", "value": "q"}, {"from": "Instructor", "value": "a"}]}
    assert [m["role"] for m in read(taught, roles={"Student ": "user"}).messages] == ["user", "assistant"]
    for other, roles in (("user", ["user", "assistant"]), ("gpt", ["user", "assistant"])):
        names = ("user", "instructor") if other == "user" else ("instructor", "gpt")
        row = {"conversations": [{"from": name, "value": "x"} for name in names]}
        assert [m["role"] for m in read(row).messages] == roles
    assert [m["role"] for m in read({"dialog": [["instructor", "q"], ["ai", "a"]]}).messages] == ["user", "assistant"]


def test_unknown_names_are_named_until_they_are_mapped():
    row = {"conversations": [{"from": "Seeker", "value": "q"}, {"from": "oracle", "value": "a"}]}
    with pytest.raises(UnusableRow, match='unknown role "Seeker"'):
        read(row)
    mapped = read(row, roles={" SEEKER": "user", "oracle": "assistant"})
    assert [m["role"] for m in mapped.messages] == ["user", "assistant"]
    keyed = {"chat": [{"user": "q"}, {"oracle": "a"}]}
    with pytest.raises(UnusableRow, match='unknown role "oracle"'):
        read(keyed)
    assert len(read(keyed, roles={"oracle": "assistant"}).messages) == 2
    with pytest.raises(UnusableRow) as caught:
        read({"conversations": [{"from": "x" * 99, "value": "q"}]})
    assert len(str(caught.value)) < 60


def test_fields_that_nothing_reads_are_named():
    row = {
        "id": 1,
        "Score": 0.5,
        "empty": "",
        "nothing": None,
        "list": [],
        "messages": [USER | {"name": "Ann"}, REPLY | {"refusal": "no", "audio": None}],
    }
    assert read(row).unused == ("Score", "id", "messages[].name", "messages[].refusal")
    assert read({"Prompt": "q", "prompt": "other", "completion": "a"}).unused == ("prompt",)
