"""Any conversation under any template: the replies are trained whole, and nothing else is."""

import random

import numpy as np
import pytest

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


def some_talk(rng):
    def text(name):
        return f"{name}:" + "".join(rng.choices(WORDS, k=rng.randint(1, 8))) + f":{name}"

    turns = [("system", text("s"))] if rng.random() < 0.4 else []
    for n in range(rng.randint(1, 4)):
        turns += [("user", text(f"u{n}")), ("assistant", text(f"a{n}"))]
    return talk(*turns)


@pytest.mark.parametrize("text", TEMPLATES, ids=range(len(TEMPLATES)))
def test_what_goes_in_is_what_is_trained(text):
    template, rng = inspect_template(make_tokenizer(text), model="m"), random.Random(3)
    tokenizer = template.tokenizer
    control = [tokenizer.convert_tokens_to_ids(token) for token in SPECIALS]
    talks = [some_talk(rng) for _ in range(40)]
    plain = [talk(*((m["role"], m["role"]) for m in each.messages)) for each in talks]
    encode = Encoder(template, 100_000, "assistant", "cut").encode
    for each, found, harmless in zip(talks, encode(talks), encode(plain), strict=True):
        assert found.reason is None and len(found.rows) == len(harmless.rows)
        replies = [m["content"] for m in each.messages if m["role"] == "assistant"]
        runs = [run for _, row in found.rows for run in loss_runs(row, tokenizer)]
        assert len(runs) == len(replies)
        for run, reply in zip(runs, replies, strict=True):
            lead, _, tail = run.partition(reply)
            assert reply in run and "u" not in lead.replace("assistant", "") and tail in TAILS
        for (_, row), (_, other) in zip(found.rows, harmless.rows, strict=True):
            assert [np.isin(row.input_ids, token).sum() for token in control] == [
                np.isin(other.input_ids, token).sum() for token in control
            ]


TAILS = {"<|eot|>", "<end>", "</im>", "</im>\n<|eot|>"}


def loss_runs(row, tokenizer):
    carry = row.labels != NO_LOSS
    edges = np.flatnonzero(np.diff(np.concatenate([[0], carry.astype(int), [0]])))
    return [tokenizer.decode(row.input_ids[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]
