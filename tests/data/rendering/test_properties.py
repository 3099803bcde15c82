"""Any conversation under any template: the replies are trained whole, and nothing else is."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragrid.data.rendering.encoder import Encoder
from loragrid.data.rendering.tokenizing import NO_LOSS
from loragrid.models.chat_templates.probes import inspect_template
from tests.fixtures.chat_templates import (
    CHATML,
    ENDS_ONCE,
    GEMMA_LIKE,
    LLAMA_LIKE,
    MARKED,
    OPENS_THOUGHTS,
    SPECIALS,
    SYSTEM_LAST,
    THOUGHTS_LAST,
    make_tokenizer,
    talk,
)

WORDS = ["an", "axe", "  ", "\n", "Änne", "🏃", "<", "{{ x }}", "'", *SPECIALS[1:]]
TEMPLATES = [LLAMA_LIKE, GEMMA_LIKE, CHATML, MARKED, ENDS_ONCE, OPENS_THOUGHTS, SYSTEM_LAST, THOUGHTS_LAST]


# Letters as well as words; none of U+E000 and the next, by which places are found.
SAID = st.lists(st.sampled_from(WORDS) | st.characters(exclude_categories=["Cs", "Co"]), min_size=1, max_size=8).map(
    "".join
)


@st.composite
def talks(draw):
    """A conversation whose replies may be marked not to train on, with a name around each text."""

    def text(name):
        return f"{name}:{draw(SAID)}:{name}"

    turns = [("system", text("s"))] if draw(st.booleans()) else []
    untrained = set()
    for n in range(draw(st.integers(1, 4))):
        turns += [("user", text(f"u{n}")), ("assistant", text(f"a{n}"))]
        if draw(st.integers(0, 4)) == 0:
            untrained.add(len(turns) - 1)
    return replace(talk(*turns), untrained=frozenset(untrained))


@cache
def template_of(text):
    return inspect_template(make_tokenizer(text), model="m")


@pytest.mark.parametrize("text", TEMPLATES, ids=range(len(TEMPLATES)))
@settings(max_examples=15)
@given(each=talks())
def test_what_goes_in_is_what_is_trained(text, each):
    template = template_of(text)
    tokenizer = template.tokenizer
    plain = replace(each, messages=talk(*((m["role"], m["role"]) for m in each.messages)).messages)
    found, harmless = Encoder(template, 100_000, "assistant", "cut").encode([each, plain])
    contents = {at: m["content"] for at, m in enumerate(each.messages) if m["role"] == "assistant"}
    replies = [content for at, content in contents.items() if at not in each.untrained]
    assert len(found.rows) == len(harmless.rows)
    if not replies:
        assert found.reason == "every reply is marked not to train on"
        return
    runs = [run for _, row in found.rows for run in loss_runs(row, tokenizer)]
    assert found.reason is None and len(runs) == len(replies)
    for run, reply in zip(runs, replies, strict=True):
        lead, _, tail = run.partition(reply)
        assert reply in run and "u" not in lead.replace("assistant", "") and tail in TAILS
    control = [tokenizer.convert_tokens_to_ids(token) for token in SPECIALS]
    for (_, row), (_, other) in zip(found.rows, harmless.rows, strict=True):
        assert [np.isin(row.input_ids, token).sum() for token in control] == [
            np.isin(other.input_ids, token).sum() for token in control
        ]


@settings(max_examples=15)
@given(each=talks(), loss_on=st.sampled_from(["last_reply", "all"]))
def test_loss_is_only_where_it_belongs(each, loss_on):
    """`last_reply`: that reply alone, or the reason why not; `all`: everything but the marked replies."""
    template = template_of(CHATML)
    (found,) = Encoder(template, 100_000, loss_on, "cut").encode([each])
    replies = [at for at, message in enumerate(each.messages) if message["role"] == "assistant"]
    if each.untrained.issuperset(replies) or (loss_on == "last_reply" and replies[-1] in each.untrained):
        assert "marked not to train on" in found.reason and not found.rows
        return
    ((_, row),) = found.rows
    trained = "".join(loss_runs(row, template.tokenizer))
    if loss_on == "last_reply":
        assert trained == each.messages[-1]["content"] + "</im>"
        return
    expected = "".join(
        f"<im>{m['role']}\n" + ("" if at in each.untrained else m["content"] + "</im>") + "\n"
        for at, m in enumerate(each.messages)
    )
    assert trained == expected


TAILS = {"<|eot|>", "<end>", "</im>", "</im>\n<|eot|>"}


def loss_runs(row, tokenizer):
    carry = row.labels != NO_LOSS
    edges = np.flatnonzero(np.diff(np.concatenate([[0], carry.astype(int), [0]])))
    return [tokenizer.decode(row.input_ids[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]
