"""Forms of rows: each is read as the same conversation, whatever its keys and their case."""

import json

import pytest

from loragrid.data.formats.conversation_formats import UnusableRow, detect_format, to_conversation
from loragrid.errors import UserError


def read(row, rows=None, **study):
    return to_conversation(row, detect_format(rows or [row], source_name="f", **study))


def texts(conversation):
    return [(message["role"], message["content"]) for message in conversation.messages]


TURNS = [("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2")]
SPOKEN = [{"role": role, "content": text} for role, text in TURNS]
CONVERSATIONS = {
    "messages": [{name: SPOKEN} for name in "conversations messages conversation dialog dialogue turns chat".split()]
    + [{"messages": {"role": [r for r, _ in TURNS], "content": [t for _, t in TURNS], "name": [None] * 4}}]
    + [
        {"messages": str(SPOKEN)},
        {"messages": json.dumps(SPOKEN)},
        {"Messages": [{"Role": r.upper(), "Content": t} for r, t in TURNS]},
    ],
    "sharegpt": [{"conversations": [{"from": role, "value": text} for role, text in TURNS]}],
    "role/value turns": [{"conversations": [{"role": role, "value": text} for role, text in TURNS]}],
    "from/content turns": [{"turns": [{"from": role, "content": text} for role, text in TURNS]}],
    "speaker/text turns": [{"dialogue": [{"speaker": f" {role} ", "text": text} for role, text in TURNS]}],
    "keyed": [
        {"chat": [{role: text} for role, text in TURNS]},
        {"chat": [{"assistant": "a1", "human": "q1"}, {"assistant": "a2", "human": "q2"}]},
    ],
    "pairs": [{"conversation": [["q1", "a1"], ["q2", "a2"]]}],
    "named pairs": [{"conversation": [[role, text] for role, text in TURNS]}],
    "alpaca": [
        {"instruction": "q2", "output": "a2", "history": history}
        for history in ([["q1", "a1"]], '[["q1", "a1"]]', SPOKEN[:2])
    ],
}


@pytest.mark.parametrize(("name", "row"), [(name, row) for name, rows in CONVERSATIONS.items() for row in rows])
def test_a_conversation_in_any_form(name, row):
    assert detect_format([row], source_name="f").name == name
    conversation = read(row)
    assert texts(conversation) == TURNS
    assert (conversation.unused, conversation.notes, conversation.untrained) == ((), (), frozenset())


PAIRS = {
    "prompt/completion": {},
    "prompt/response": {},
    "question/answer": {},
    "query/response": {},
    "input/output": {},
    "instruction/response": {},
    "problem/solution": {},
    "inputs/targets": {},
    "Context/Response": {},
    "user/assistant": {},
    "Question/Answer": {},
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_prompt_and_its_reply_by_any_name(name):
    prompt, reply = name.split("/")
    row = {"id": 4, prompt: "q", reply: "a", "system_prompt": "s", "reasoning": "because", "note": ""}
    assert detect_format([row], source_name="f").name == name.lower()
    conversation = read(row)
    assert texts(conversation) == [("system", "s"), ("user", "q"), ("assistant", "a")]
    assert conversation.messages[-1]["reasoning_content"] == "because" and conversation.unused == ("id",)


def test_lists_of_turns_as_prompt_and_completion_train_the_completion():
    conversation = read({"prompt": SPOKEN[:3], "completion": SPOKEN[3:]})
    assert texts(conversation) == TURNS and conversation.untrained == {1}
    assert conversation.notes == ("prompt_replies_untrained",)
    assert read({"prompt": SPOKEN[:1], "completion": SPOKEN[1:2]}).notes == ()


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q1", "chosen": "a1", "rejected": "no"},
        {"prompt": SPOKEN[:1], "chosen": SPOKEN[1:2], "rejected": [{"role": "assistant", "content": "no"}]},
        {"prompt": "q1", "chosen": SPOKEN[:2], "rejected": SPOKEN[:1]},
        {"chosen": SPOKEN[:2], "rejected": SPOKEN[:1]},
        {"conversations": SPOKEN[:1], "chosen": SPOKEN[1], "rejected": SPOKEN[3]},
        {"question": "q1", "chosen": "a1", "rejected": "no"},
        {"chosen": "\n\nHuman: q1\n\nAssistant: a1", "rejected": "\n\nHuman: q1\n\nAssistant: no"},
    ],
)
def test_of_preference_rows_the_chosen_reply_is_trained(row):
    assert detect_format([row], source_name="f").name == "preference"
    conversation = read(row)
    assert texts(conversation) == TURNS[:2] and conversation.untrained == frozenset()
    assert (conversation.unused, conversation.notes) == (("rejected",), ("preference_rows",))


def test_a_chosen_reply_without_a_prompt_and_a_bad_reply_have_their_reasons():
    with pytest.raises(UnusableRow, match="empty prompt"):
        read({"chosen": "a", "rejected": "b"})
    with pytest.raises(UnusableRow, match="labelled as a bad reply"):
        read({"prompt": "q", "completion": "a", "label": False})
    assert read({"prompt": "q", "completion": "a", "label": True}).unused == ()
    assert read({"question": "q", "answer": "a", "label": False}).unused == ("label",)
    assert read({"text": "a", "label": False}).unused == ("label",)
    with pytest.raises(UnusableRow, match="labelled as a bad reply"):
        read({"messages": SPOKEN, "kto_tag": False})
    assert read({"prompt": "q", "completion": "a", "label": 0}).unused == ("label",)


def test_plain_text_is_one_reply():
    conversation = read({"text": "Once.\n", "meta": {"page": 3}, "system": "s"})
    assert texts(conversation) == [("assistant", "Once.\n")]
    assert (conversation.notes, conversation.unused) == (("plain_text",), ("meta", "system"))
    with pytest.raises(UnusableRow, match="empty reply"):
        read({"text": " "}, rows=[{"text": "x"}])


@pytest.mark.parametrize(
    ("row", "name", "unused"),
    [
        ({"text": "t", "messages": SPOKEN}, "messages", ("text",)),
        ({"prompt": "p", "messages": SPOKEN, "completion": "c"}, "messages", ("completion", "prompt")),
        ({"messages": SPOKEN, "conversations": [{"from": "user", "value": "x"}] * 2}, "sharegpt", None),
        ({"instruction": "q", "output": "a", "text": "t"}, "alpaca", ("text",)),
        ({"instruction": "q", "prompt": "p", "output": "a", "response": "r"}, "alpaca", ("prompt", "response")),
        ({"instruction": "q", "context": "c", "response": "a"}, "instruction/response", ()),
        ({"turns": ["q", "r"], "question": "q", "answer": "a"}, "question/answer", ("turns",)),
        ({"input": "q", "user": "anna", "output": "a"}, "input/output", ("user",)),
        ({"chosen": 1, "messages": SPOKEN}, "messages", ("chosen",)),
    ],
)
def test_of_a_row_that_fits_two_forms_the_columns_of_the_other_are_counted(row, name, unused):
    assert detect_format([row], source_name="f").name == name
    if unused is not None:
        assert read(row).unused == unused


def test_named_columns_are_read_before_any_other():
    row = {"frage": "q", "Antwort": "a", "rolle": "s", "vorher": [["h", "g"]], "output": "no", "werkzeug": "[]"}
    names = {"prompt": "frage", "reply": "Antwort", "system": "rolle", "history": "vorher", "tools": "werkzeug"}
    conversation = read(row, columns=names)
    assert texts(conversation) == [
        ("system", "s"),
        ("user", "h"),
        ("assistant", "g"),
        ("user", "q"),
        ("assistant", "a"),
    ]
    assert conversation.unused == ("output",)
    assert detect_format([row], source_name="f", columns=names).name == "frage/antwort"
    assert texts(read({"zug": SPOKEN, "messages": SPOKEN[:1]}, columns={"messages": "zug"})) == TURNS
    assert read({"body": "x", "messages": SPOKEN}, columns={"text": "body"}).notes == ("plain_text",)
    # One named column, the other by its usual name.
    assert texts(read({"frage": "q", "prompt": "p", "response": "a"}, columns={"prompt": "frage"}))[0] == ("user", "q")


def test_a_named_column_that_no_row_has_is_an_error_with_the_nearest_name():
    with pytest.raises(UserError) as caught:
        detect_format([{"frage": "q", "antwort": "a"}], source_name="f", columns={"prompt": "frage", "reply": "anwort"})
    assert str(caught.value) == (
        "data f, columns.reply: no row has this column (anwort); columns seen: antwort, frage. Fix: write antwort."
    )


def test_several_texts_are_not_one_reply():
    with pytest.raises(UnusableRow, match="not text"):
        read({"prompt": "q", "completion": ["a", "b"]})
    assert texts(read({"prompt": "q", "completion": ["a"]})) == [("user", "q"), ("assistant", "a")]


def test_labels_as_texts_say_so_too():
    with pytest.raises(UnusableRow, match="labelled as a bad reply"):
        read({"prompt": "q", "completion": "a", "label": "False"})
    assert read({"prompt": "q", "completion": "a", "label": "True"}).unused == ()
    assert read({"prompt": "q", "completion": "a", "label": 0}).unused == ("label",)


@pytest.mark.parametrize(
    ("rows", "fix"),
    [
        ([{"data": [{"messages": SPOKEN}]}], "give the list under data as the file"),
        ([{"id": 1, "messages": "[{'role' 'user'}]"}] * 2, "write the turns in messages as JSON"),
        (
            [{"What is the capital of the land that is so very far away from here?": "b", "x": "c"}],
            "write the columns' names above",
        ),
        ([{"role": "prompter", "text": "hello"}] * 2, "give all turns of a conversation in one row"),
        ([[{"messages": SPOKEN}]], "a file that is one array is named .json"),
    ],
)
def test_an_unknown_format_says_what_to_do(rows, fix):
    with pytest.raises(UserError, match=f"Fix: .*{fix}"):
        detect_format(rows, source_name="f")
