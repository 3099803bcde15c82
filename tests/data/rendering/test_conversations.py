"""Templates that do more than append, tool calls and reasoning: what is rendered, and where the loss is."""

import pytest

from loragrid.data.rendering.conversations import render_conversations
from loragrid.models.chat_templates.probes import inspect_template
from tests.fixtures.chat_templates import (
    CHATML,
    ENDS_ONCE,
    OPENS_THOUGHTS,
    SYSTEM_LAST,
    THOUGHTS_LAST,
    WITH_CALLS,
    make_tokenizer,
    talk,
)

ONE = [("user", "How far?"), ("assistant", "Ten miles.")]
TWO = [("system", "Be brief."), *ONE, ("user", "How fast?"), ("assistant", "In an hour.")]
CALL = {"type": "function", "function": {"name": "measure", "arguments": {"unit": "mile"}}}


def rendered(text, turns, loss_on="assistant"):
    return render_conversations(inspect_template(make_tokenizer(text), model="m"), [turns], loss_on=loss_on)[0]


def trained(found):
    return [chat.text[start:end] for chat in found.chats for start, end in chat.replies]


@pytest.mark.parametrize(
    ("text", "replies", "fact"),
    [
        (CHATML, ["Ten miles.</im>", "In an hour.</im>"], None),
        (ENDS_ONCE, ["Ten miles.</im>", "In an hour.</im>\n<|eot|>"], None),
        (SYSTEM_LAST, [" Ten miles.<|eot|>", " In an hour.<|eot|>"], "moved_text"),
        (OPENS_THOUGHTS, ["Ten miles.</im>", "In an hour.</im>"], "opened_thoughts"),
        (THOUGHTS_LAST, [f"<think>\n\n</think>\n\n{r}</im>" for r in ("Ten miles.", "In an hour.")], "per_reply"),
    ],
)
def test_replies_of_two_exchanges(text, replies, fact):
    found = rendered(text, talk(*TWO))
    assert trained(found) == replies and found.facts == ({fact} if fact else set())
    assert [chat.text.count("How fast?") for chat in found.chats] == ([0, 1] if fact == "per_reply" else [1])
    assert all(chat.text.count("Be brief.") == 1 for chat in found.chats)
    assert trained(rendered(text, talk(*TWO), "last_reply")) == replies[1:]
    whole = rendered(text, talk(*TWO), "all")
    assert [chat.text for chat in whole.chats] == [found.chats[-1].text]


def test_one_exchange_of_a_template_that_rewrites_stays_one_row():
    found = rendered(THOUGHTS_LAST, talk(*ONE))
    assert trained(found) == ["<think>\n\n</think>\n\nTen miles.</im>"] and not found.facts


def test_replies_that_are_not_where_they_were_are_not_guessed():
    """A reply whose text also stands elsewhere is trained in its own place only."""
    turns = [("user", "Ten miles."), ("assistant", "Ten miles."), ("user", "Ten miles."), ("assistant", "Ten miles.")]
    (chat,) = rendered(SYSTEM_LAST, talk(("system", "Ten miles."), *turns)).chats
    assert chat.text == (
        "<s><turn>Ten miles.<end> Ten miles.<|eot|><turn>Ten miles.\n\nTen miles.<end> Ten miles.<|eot|>"
    )
    assert chat.replies == ((24, 42), (len(chat.text) - 18, len(chat.text)))


def with_keys(**keys):
    conversation = talk(*ONE)
    conversation.messages[1] |= keys
    return conversation


def test_tool_calls_in_the_template_s_form_or_as_json():
    own = rendered(WITH_CALLS, with_keys(tool_calls=[CALL, CALL]))
    json_text = '{"name": "measure", "arguments": {"unit": "mile"}}'
    assert trained(own) == [f"Ten miles.<call>{json_text}</call><call>{json_text}</call></im>"] and not own.facts
    made_up = rendered(CHATML, with_keys(tool_calls=[CALL]))
    assert trained(made_up) == [f"Ten miles.\n{json_text}</im>"] and made_up.facts == {"made_up_calls"}
    alone = rendered(CHATML, with_keys(content="", tool_calls=[CALL]))
    assert trained(alone) == [f"{json_text}</im>"]


def test_reasoning_where_the_template_shows_it_and_counted_where_not():
    thinking = with_keys(reasoning_content="Count the miles.")
    assert trained(rendered(THOUGHTS_LAST, thinking)) == ["<think>\nCount the miles.\n</think>\n\nTen miles.</im>"]
    assert trained(rendered(THOUGHTS_LAST.replace("reasoning_content", "thinking"), thinking))[0].startswith(
        "<think>\nC"
    )
    left_out = rendered(CHATML, thinking)
    assert trained(left_out) == ["Ten miles.</im>"] and left_out.facts == {"thoughts_left_out"}


def test_text_that_a_template_leaves_out_is_counted():
    cuts = CHATML.replace("m['content'] +", "m['content'].split('</think>')[-1] +")
    found = rendered(cuts, with_keys(content="<think>Count.</think>Ten miles."))
    assert trained(found) == ["Ten miles.</im>"] and found.facts == {"not_shown"}
