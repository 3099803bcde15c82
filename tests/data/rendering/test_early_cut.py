"""Texts far longer than the limit: cut before they are tokenised, with the kept tokens and labels of the whole text."""

import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragrid.data.rendering import early_cut
from loragrid.data.rendering.encoder import Encoder, _parts
from loragrid.models.chat_templates.probes import inspect_template
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.paths import ROOT
from tests.fixtures.chat_templates import CHATML, LLAMA_LIKE, SYSTEM_LAST, THOUGHTS_LAST, make_tokenizer, talk

LIMIT = 24
# Folders of further models, as LORAGRID_MODELS=FOLDER:FOLDER.
MODELS = [ROOT / "resources/models/llama-s", ROOT / "resources/models/gemma-s"]
MODELS += [Path(folder) for folder in os.environ.get("LORAGRID_MODELS", "").split(":") if folder]
PIECES = [
    *("word", "a", "I'll", "don't", "10 km", "1,000.5", "naïve", "e\u0301", "日本語", "🏃🏽", "\u200d", "ﬁ", "x" * 90),
    *(
        "\n",
        "\n\n",
        "\t",
        "  ",
        " " * 70,
        "\r\n",
        "\u00a0",
        ".",
        "...",
        "-" * 40,
        "<|eot|>",
        "<|im_end|>",
        "<",
        "Σ",
        "SS",
    ),
]
# As the words of a language stand between whatever else a text holds.
TEXTS = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs", "Co"]), max_size=30).map(" ".join)


@pytest.fixture(scope="module", autouse=True)
def short_texts() -> Iterator[None]:
    """The limits for texts of a test's length."""
    with pytest.MonkeyPatch.context() as patch:
        names = {"FEWEST_CHARACTERS": 300, "CHARACTERS_PER_TOKEN": 1, "SPARE_TOKENS": 16, "SPARE_WORDS": 12}
        for name, value in (names | {"SEARCH_CHARACTERS": 250}).items():
            patch.setattr(early_cut, name, value)
        yield


@cache
def template_of(model: Path | str) -> ChatTemplate:
    if isinstance(model, str):
        return inspect_template(make_tokenizer(model), model="m")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = tokenizer.chat_template or CHATML
    return inspect_template(tokenizer, model="m")


def words(seed: int, count: int) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("aeinrst", k=draw.randint(1, 8))) for _ in range(count))


def encoded(template: ChatTemplate, conversations: list, loss_on: str = "assistant"):
    encoder = Encoder(template, LIMIT, loss_on, "cut")
    return [(row, each.reason) for each in encoder.encode(conversations) for _, row in each.rows or [(None, None)]]


@pytest.mark.parametrize("model", [*MODELS, LLAMA_LIKE, THOUGHTS_LAST, SYSTEM_LAST], ids=lambda m: Path(m).name[:12])
@settings(max_examples=8)
@given(st.lists(TEXTS, min_size=2, max_size=4), st.integers(0, 99), st.sampled_from(["assistant", "last_reply", "all"]))
def test_the_kept_tokens_and_labels_are_those_of_the_whole_text(
    model, texts: list[str], seed: int, loss_on: str
) -> None:
    turns = [("user", f"u{texts[0]} {words(seed, 5)}"), ("assistant", f"a{texts[1]} {words(seed + 1, 90)} {texts[-1]}")]
    turns += [("user", f"v{words(seed + 2, 60)}"), ("assistant", f"b{texts[-1]} {words(seed + 3, 90)}")]
    # Short ones beside it are not cut.
    conversations = [talk(*turns), talk(("user", "hi"), ("assistant", "ho")), talk(*turns[2:])]
    template = template_of(model)
    cut = encoded(template, conversations, loss_on)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(early_cut, "FEWEST_CHARACTERS", 10**9)
        whole = encoded(template, conversations, loss_on)
    assert len(cut) == len(whole) and not any(row.begun for row, _ in whole if row)
    for (row, reason), (expected, reason_of_whole) in zip(cut, whole, strict=True):
        assert reason == reason_of_whole
        if expected is not None:
            assert np.array_equal(row.input_ids, expected.input_ids) and np.array_equal(row.labels, expected.labels)
            assert row.full_length == expected.full_length or (
                row.begun and LIMIT < row.full_length < expected.full_length
            )


def test_long_texts_are_cut_and_doubtful_ones_are_not() -> None:
    template = template_of(MODELS[0])
    texts = [words(1, 400), "x" * 3_000, words(1, 2) + " " * 3_000 + words(2, 20)]
    rows = encoded(template, [talk(("user", "hi"), ("assistant", text)) for text in texts])
    assert [row.begun for row, _ in rows] == [True, False, False]


def test_texts_that_do_not_fit_into_memory_together_are_rendered_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loragrid.data.rendering.encoder.MOST_CHARACTERS", 100)
    said = [talk(("user", "q"), ("assistant", "a" * length)) for length in (10, 10, 30, 500, 4, 4)]
    parts = list(_parts(said))
    assert [len(part) for part in parts] == [2, 1, 1, 2] and [one for part in parts for one in part] == said
