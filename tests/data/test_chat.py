"""Rendering and loss mask under templates of the kinds that people use, and every reason for which a row is refused."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from loragrid.data.conversation_formats import BadRow, Conversation, find_form, to_conversation
from loragrid.data.tokenizing import NO_LOSS, encode, loss_tokens, render
from loragrid.errors import UserError
from loragrid.models.chat_template import adapt_roles, inspect_template, with_fixed_date

LLAMA_LIKE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|head|>\n\n' + m['content'] | trim + '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|head|>\n\n' }}{% endif %}"
)
GEMMA_LIKE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
    "{% endif %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<turn>' + role + '\n' + m['content'] | trim + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<im>' + m['role'] + '\n' + m['content'] + '</im>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<im>assistant\n' }}{% endif %}"
)
WITH_TOOLS = "{% if tools %}{{ '<|start|>tools' + (tools | tojson) + '<|eot|>' }}{% endif %}" + LLAMA_LIKE
REWRITES = (
    "{% for m in messages %}{{ '<im>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' and loop.last %}"
    "{{ 'thinking' }}{% endif %}{{ m['content'] + '</im>\n' }}{% endfor %}"
)
MARKED = (
    "{% for m in messages %}{{ '<im>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '</im>' }}{% endgeneration %}{% else %}{{ m['content'] + '</im>' }}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if messages | length > 2 %}{{ '<|eot|>' }}{% endif %}"
)
SPECIALS = ["<unk>", "<s>", "<|start|>", "<|head|>", "<|eot|>", "<turn>", "<end>", "<im>", "</im>"]
END_OF_TURN = {LLAMA_LIKE: "<|eot|>", GEMMA_LIKE: "<end>", CHATML: "</im>", MARKED: "</im>"}


def make_tokenizer(template):
    """A byte-level tokenizer whose post-processor would add an opening token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: i for i, token in enumerate(SPECIALS + letters + ["an", "Ġa"])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[("a", "n"), ("Ġ", "a")], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>", extra_special_tokens=SPECIALS[2:]
    )
    fast.chat_template = template
    return fast


def talk(*turns, tools=None):
    return Conversation([{"role": role, "content": text} for role, text in turns], tools, cut=False)


def encode_one(template, conversation, *, limit=10_000, loss_on="assistant"):
    return encode(template, render(template, [conversation]), max_length_tokens=limit, loss_on=loss_on)[0]


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
    assert not row.straddles
    assert template.needs_generation_marks == (text is MARKED)


@pytest.mark.parametrize("text", [LLAMA_LIKE, GEMMA_LIKE])
def test_one_opening_token_and_all_loss(text):
    tokenizer = make_tokenizer(text)
    row = encode_one(inspect_template(tokenizer, model="m"), CHAT, loss_on="all")
    assert (row.input_ids == tokenizer.bos_token_id).sum() == 1
    assert row.labels[0] == NO_LOSS
    assert np.array_equal(row.labels[1:], row.input_ids[1:])
    assert loss_tokens(row.labels) == len(row.labels) - 1


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
    """Templates as their models ship them, out of TRL's collection: a system turn, two exchanges, a call of a tool."""
    folder = Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
    template = inspect_template(make_tokenizer((folder / f"{name}.jinja").read_text(encoding="utf-8")), model=name)
    turns = [("system", "Be brief."), *((m["role"], m["content"]) for m in CHAT.messages), ("user", "How far?")]
    chat = talk(*turns, ("assistant", '{"name": "f"}'), ("tool", "42"), ("assistant", "42 km."))
    found = render(template, [chat])[0]
    replies = [message["content"] for message in chat.messages if message["role"] == "assistant"]
    assert [found.text[a:b] for a, b in found.replies] == [(r.strip() if trims else r) + end for r in replies]
    assert all(message["content"].strip() in found.text for message in chat.messages)
    assert ("26 Jul 2024" in found.text) == (name == "llama3_2")


def test_a_token_across_the_border_counts_as_the_reply():
    plain = (
        "{% for m in messages %}{{ m['role'] + ': ' if m['role'] == 'user' else 'bot: ' }}{{ m['content'] + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'bot: ' }}{% endif %}"
    )
    tokenizer = make_tokenizer(plain)
    row = encode_one(inspect_template(tokenizer, model="m"), talk(("user", "x"), ("assistant", "axe")))
    assert row.straddles
    assert loss_pieces(tokenizer, row) == [" axe\n"]


def test_truncation_is_from_the_right_and_told():
    template = inspect_template(make_tokenizer(CHATML), model="m")
    whole = encode_one(template, CHAT)
    cut = encode_one(template, CHAT, limit=30)
    assert cut.full_length == len(whole.input_ids) > 30
    assert np.array_equal(cut.input_ids, whole.input_ids[:30]) and np.array_equal(cut.labels, whole.labels[:30])
    assert loss_tokens(encode_one(template, CHAT, limit=5).labels) == 0


def test_roles_that_a_template_lacks():
    messages = talk(
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "call"),
        ("tool", "42"),
        ("assistant", "a"),
        ("assistant", "b"),
    ).messages
    llama = inspect_template(make_tokenizer(LLAMA_LIKE), model="m")
    assert (
        llama.supports_system
        and llama.supports_tool_role
        and llama.supports_repeated_roles
        and not llama.supports_tools
    )
    assert adapt_roles(llama, messages) == messages
    gemma = inspect_template(make_tokenizer(GEMMA_LIKE), model="m")
    assert not (gemma.supports_system or gemma.supports_tool_role or gemma.supports_repeated_roles)
    assert [(m["role"], m["content"]) for m in adapt_roles(gemma, messages)] == [
        ("user", "Be brief.\n\nHi"),
        ("assistant", "call"),
        ("user", "42"),
        ("assistant", "a\n\nb"),
    ]


def test_tools_are_shown_where_the_template_has_a_place():
    tools = [{"type": "function", "function": {"name": "find_run", "description": "d", "parameters": {}}}]
    with_tools = inspect_template(make_tokenizer(WITH_TOOLS), model="m")
    rendered = render(with_tools, [talk(("user", "x"), ("assistant", "y"), tools=tools)])[0]
    assert with_tools.supports_tools and "find_run" in rendered.text
    without = inspect_template(make_tokenizer(LLAMA_LIKE), model="m")
    assert "find_run" not in render(without, [talk(("user", "x"), ("assistant", "y"), tools=tools)])[0].text


def test_a_template_that_rewrites_earlier_turns_is_refused_by_name():
    with pytest.raises(UserError, match=r"model tiny: .* rewrites earlier turns .* set a chat_template"):
        inspect_template(make_tokenizer(REWRITES), model="tiny")
    with pytest.raises(UserError, match=r"model tiny: .* no chat template\. Fix: set chat_template"):
        inspect_template(make_tokenizer(None), model="tiny")
    with pytest.raises(UserError, match=r"model tiny: .* does not render a plain conversation"):
        inspect_template(make_tokenizer("{{ no such }}"), model="tiny")


def test_one_refused_row_does_not_take_others_with_it():
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
    assert [r is None for r in render(picky, [good, talk(("user", "bad"), ("assistant", "y")), good])] == [
        False,
        True,
        False,
    ]
    assert render(template, [odd])[0].text.count("late\n\nw") == 1


def test_the_date_does_not_enter_the_data():
    dated = "{{ strftime_now('%d %b %Y') + '\n' }}" + CHATML
    template = inspect_template(make_tokenizer(dated), model="m")
    assert render(template, [CHAT])[0].text.startswith("26 Jul 2024\n")
    assert with_fixed_date(with_fixed_date(dated)) == with_fixed_date(dated) == template.text
    assert with_fixed_date(CHATML) == CHATML


HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}
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
        {"conversations": [HUMAN, {"from": "gpt", "value": "", "tool_calls": "x"}]},
    ],
    "unknown role": [
        {"conversations": [HUMAN, {"from": "narrator", "value": "x"}]},
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
}


@pytest.mark.parametrize(("reason", "row"), [(reason, row) for reason, rows in REFUSED.items() for row in rows])
def test_refused_rows_have_their_reason(reason, row):
    with pytest.raises(BadRow) as caught:
        to_conversation(row, "sharegpt")
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("reason", "row"),
    [
        ("empty reply", {"instruction": "a", "input": "", "output": ""}),
        ("empty reply", {"instruction": "a", "input": "", "output": None}),
        ("empty prompt", {"instruction": "", "input": " ", "output": "x"}),
        ("not text", {"instruction": "a", "input": 3, "output": "x"}),
        ("not text", {"instruction": "a", "input": "", "output": 4.5}),
        ("not text", {"instruction": "a", "input": "", "output": "x", "history": [["a"]]}),
    ],
)
def test_refused_alpaca_rows(reason, row):
    with pytest.raises(BadRow) as caught:
        to_conversation(row, "alpaca")
    assert str(caught.value) == reason


def test_sharegpt_with_tools_and_a_cut_end():
    rows = [
        ("system", "s"),
        ("human", "q"),
        ("function_call", '{"name": "f"}'),
        ("observation", ""),
        ("GPT", "r"),
        ("human", "bye"),
    ]
    row = {"conversations": [{"from": r, "value": v} for r, v in rows], "tools": json.dumps([{"name": "f"}])}
    conversation = to_conversation(row, "sharegpt")
    assert [m["role"] for m in conversation.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert conversation.cut
    assert conversation.tools == [{"type": "function", "function": {"name": "f"}}]


def test_messages_with_parts_and_calls():
    row = {
        "messages": [
            {"role": "system", "content": None},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f"}}]},
            {"role": "tool", "content": "4"},
            {"role": "assistant", "content": "four"},
        ]
    }
    assert find_form([row], name="x") == "messages"
    contents = [m["content"] for m in to_conversation(row, "messages").messages]
    assert contents == ["ab", '{"name": "f"}', "4", "four"]


def test_alpaca_with_input_system_and_history():
    row = {"instruction": "Add", "input": "1 2", "output": "3", "system": "s", "history": [["q", "r"]]}
    found = [(m["role"], m["content"]) for m in to_conversation(row, "alpaca").messages]
    assert found == [("system", "s"), ("user", "q"), ("assistant", "r"), ("user", "Add\n\n1 2"), ("assistant", "3")]
    assert (
        to_conversation({"instruction": "Add", "input": None, "output": "3"}, "alpaca").messages[0]["content"] == "Add"
    )


def test_forms_are_found_or_the_keys_are_named():
    sharegpt, messages = {"conversations": [HUMAN, GPT]}, {"messages": [{"role": "user", "content": "x"}]}
    assert find_form([3, {}, sharegpt], name="f") == "sharegpt"
    assert find_form([{"conversations": messages["messages"]}], name="f") == "messages"
    assert find_form([{"instruction": "a", "output": "b"}], name="f") == "alpaca"
    with pytest.raises(
        UserError, match=r"f mixes the forms messages and sharegpt \(keys seen: conversations, messages\)"
    ):
        find_form([sharegpt, messages], name="f")
    with pytest.raises(UserError, match=r"f is in no known form \(keys seen: answer, question\)"):
        find_form([{"question": "a", "answer": "b"}], name="f")
    with pytest.raises(UserError, match="none of its first 2 rows is an object"):
        find_form([1, "x"], name="f")
