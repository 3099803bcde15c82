"""Rendering, tokenising and loss labels under chat templates of the kinds that models ship."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from loragrid.data.rendering.conversations import render_conversations
from loragrid.data.rendering.tokenizing import NO_LOSS, count_loss_tokens, encode_chats
from loragrid.models.chat_templates.probes import inspect_template
from tests.fixtures.chat_templates import (
    CHATML,
    END_OF_TURN,
    GEMMA_LIKE,
    LLAMA_LIKE,
    MARKED,
    WITH_TOOLS,
    make_tokenizer,
    talk,
)


def encode_one(template, conversation, *, limit=10_000, loss_on="assistant"):
    chats = render_conversations(template, [conversation], loss_on=loss_on)[0].chats
    return encode_chats(template, chats, max_length_tokens=limit, loss_on=loss_on)[0]


def text_of(template, conversation):
    return render_conversations(template, [conversation])[0].chats[0].text


def loss_pieces(tokenizer, row):
    """The text of each unbroken run of tokens that carry loss."""
    carry = row.labels != NO_LOSS
    assert np.array_equal(row.labels[carry], row.input_ids[carry])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], carry.astype(int), [0]])))
    return [tokenizer.decode(row.input_ids[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


CHAT = talk(
    ("user", "An answer?"), ("assistant", " Änne läuft 🏃 an "), ("user", "And\nthen?"), ("assistant", "Stop.\n")
)


@pytest.mark.parametrize("text", [LLAMA_LIKE, GEMMA_LIKE, CHATML, MARKED])
def test_loss_is_on_the_replies_and_their_end_of_turn(text):
    tokenizer = make_tokenizer(text)
    template = inspect_template(tokenizer, model="m")
    row = encode_one(template, CHAT)
    replies = [m["content"] if text in (CHATML, MARKED) else m["content"].strip() for m in CHAT.messages[1::2]]
    assert loss_pieces(tokenizer, row) == [reply + END_OF_TURN[text] for reply in replies]
    assert tokenizer.decode(row.input_ids) == tokenizer.apply_chat_template(CHAT.messages, tokenize=False)
    assert not row.crosses_border
    assert template.layout.keeps_earlier_turns == (text is not MARKED)


@pytest.mark.parametrize("text", [LLAMA_LIKE, GEMMA_LIKE])
def test_one_opening_token_and_all_loss(text):
    tokenizer = make_tokenizer(text)
    row = encode_one(inspect_template(tokenizer, model="m"), CHAT, loss_on="all")
    assert (row.input_ids == tokenizer.bos_token_id).sum() == 1
    assert row.labels[0] == NO_LOSS
    assert np.array_equal(row.labels[1:], row.input_ids[1:])
    assert count_loss_tokens(row.labels) == len(row.labels) - 1


@pytest.mark.parametrize(
    ("name", "end", "trims"),
    [
        ("llama3_2", "<|eot_id|>", True),
        ("gemma", "<end_of_turn>", True),
        ("gemma3", "<end_of_turn>", True),
        ("phi3_5", "<|end|>", False),
        ("qwen2_5", "<|im_end|>", False),
        ("qwen3_instruct_2507", "<|im_end|>", False),
    ],
)
def test_templates_of_real_models(name, end, trims):
    """Templates of real models from TRL's collection: a system turn, two exchanges, a tool call."""
    folder = Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
    template = inspect_template(make_tokenizer((folder / f"{name}.jinja").read_text(encoding="utf-8")), model=name)
    turns = [("system", "Be brief."), *((m["role"], m["content"]) for m in CHAT.messages), ("user", "How far?")]
    chat = talk(*turns, ("assistant", '{"name": "f"}'), ("tool", "42"), ("assistant", "42 km."))
    found = render_conversations(template, [chat])[0].chats[0]
    replies = [message["content"] for message in chat.messages if message["role"] == "assistant"]
    assert [found.text[a:b] for a, b in found.replies] == [(r.strip() if trims else r) + end for r in replies]
    assert all(message["content"].strip() in found.text for message in chat.messages)
    assert ("26 Jul 2024" in found.text) == (name == "llama3_2")


def test_a_token_that_crosses_the_border_counts_as_the_reply():
    plain = (
        "{% for m in messages %}{{ m['role'] + ': ' if m['role'] == 'user' else 'bot: ' }}{{ m['content'] + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'bot: ' }}{% endif %}"
    )
    tokenizer = make_tokenizer(plain)
    row = encode_one(inspect_template(tokenizer, model="m"), talk(("user", "x"), ("assistant", "axe")))
    assert row.crosses_border
    assert loss_pieces(tokenizer, row) == [" axe\n"]


def test_truncation_removes_the_end_and_keeps_the_full_length():
    template = inspect_template(make_tokenizer(CHATML), model="m")
    whole = encode_one(template, CHAT)
    cut = encode_one(template, CHAT, limit=30)
    assert cut.full_length == len(whole.input_ids) > 30
    assert np.array_equal(cut.input_ids, whole.input_ids[:30]) and np.array_equal(cut.labels, whole.labels[:30])
    assert count_loss_tokens(encode_one(template, CHAT, limit=5).labels) == 0


def test_tools_are_shown_if_the_template_supports_them():
    tools = [{"type": "function", "function": {"name": "find_run", "description": "d", "parameters": {}}}]
    chat = talk(("user", "x"), ("assistant", "y"), tools=tools)
    with_tools = inspect_template(make_tokenizer(WITH_TOOLS), model="m")
    assert with_tools.abilities.tools and "find_run" in text_of(with_tools, chat)
    assert "find_run" not in text_of(inspect_template(make_tokenizer(LLAMA_LIKE), model="m"), chat)


def test_a_refused_row_does_not_affect_the_others():
    template = inspect_template(make_tokenizer(GEMMA_LIKE), model="m")
    odd = talk(
        ("user", "x"), ("assistant", "y"), ("system", "late"), ("assistant", "z"), ("user", "w"), ("assistant", "v")
    )
    good = talk(("user", "x"), ("assistant", "y"))
    broken = LLAMA_LIKE.replace(
        "{{ bos_token }}",
        "{{ bos_token }}{% if messages[0]['content'] == 'bad' %}{{ raise_exception('x') }}{% endif %}",
    )
    picky = inspect_template(make_tokenizer(broken), model="m")
    results = render_conversations(picky, [good, talk(("user", "bad"), ("assistant", "y")), good])
    assert [result.reason for result in results] == [None, "refused by the chat template", None]
    assert text_of(template, odd).count("late\n\nw") == 1
