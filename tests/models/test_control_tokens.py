"""Control tokens that messages spell out: text, and never the token; other texts keep their tokens."""

import random

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loragrid.models.chat_templates.control_tokens import ControlTokens, Masked

WORDS = ["an", "axe", " ", "  ", "\n", "Änne", "🏃", "<", "|>", "<think>", "</think>", "</call>", ".", "\t", "läuft"]


def tokenizer(kind):
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "▁"]
    names = ["<unk>", "<s>", "<|user|>", "<|end|>", "<mark>", "<think>", "</think>", "</call>"]
    words = {token: index for index, token in enumerate([*names, *letters, "an", "Ġa"])}
    made = Tokenizer(models.BPE(vocab=words, merges=[("a", "n"), ("Ġ", "a")], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if kind == "metaspace":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.add_special_tokens([AddedToken("<|end|>", rstrip=kind == "strips", normalized=False)])
    made.add_tokens([AddedToken(name, normalized=False) for name in ("<mark>", "<think>", "</think>", "</call>")])
    special = ["<|user|>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", unk_token="<unk>", eos_token="<|end|>", extra_special_tokens=special
    )


@pytest.mark.parametrize("kind", ["bytes", "metaspace", "strips"])
def test_spelled_out_tokens_are_text_and_all_other_tokens_stay(kind):
    plain, rng = tokenizer(kind), random.Random(1)
    control = ControlTokens(plain, markers=frozenset({"<mark>"}))
    assert set(control.texts) == {"<unk>", "<s>", "<|user|>", "<|end|>", "<mark>"}
    ids = {plain.convert_tokens_to_ids(text) for text in control.texts} - {plain.unk_token_id}
    for _ in range(60):
        contents = ["".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(3)]
        opening = rng.choice(["<s>", ""])
        text = opening + "".join(f"<|user|>{content}<|end|>\n<mark> x" for content in contents)
        written = plain(text, add_special_tokens=False).encodings[0]
        found = control.encode(text, Masked(text, {}))
        assert found.ids == written.ids and [found.token_to_chars(n) for n in range(len(found))] == written.offsets
        spoiled = [content + rng.choice(control.texts) + content for content in contents]
        masked = control.mask(spoiled)
        assert not control.spelled_out_in(masked.value) and control.spelled_out_in(spoiled)
        assert masked.reveal("".join(masked.value)) == "".join(spoiled)
        rendered = opening + "".join(f"<|user|>{content}<|end|>\n<mark> x" for content in masked.value)
        encoded = control.encode(rendered, masked)
        count = sum(token in ids for token in encoded.ids)
        assert count == sum(token in ids for token in written.ids)
        # As the tokenizer encodes the same characters where they are no token.
        assert [encoded.token_to_chars(n) for n in range(len(encoded))] == sorted(
            encoded.token_to_chars(n) for n in range(len(encoded))
        )
        assert encoded.token_to_chars(len(encoded) - 1)[1] == len(rendered)


def test_every_depth_is_masked_with_masks_that_the_text_does_not_hold():
    control = ControlTokens(tokenizer("bytes"), markers=frozenset())
    value = [{"content": "\U000f0000 <|end|>", "tool_calls": [{"arguments": {"<s>": ["<|end|><|user|>"], "n": 3}}]}]
    masked = control.mask(value)
    assert not control.spelled_out_in(masked.value) and masked.value[0]["content"].startswith("\U000f0000 \U000f1001")
    assert masked.reveal(masked.value[0]["content"]) == "\U000f0000 <|end|>"
    assert masked.value[0]["tool_calls"][0]["arguments"]["n"] == 3
