"""The text that a row's loss is on: the same for models with different tokenizers and templates."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from loragrid.models.passes.row_losses import IGNORED, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def target_text(tokenizer: "PreTrainedTokenizerFast", row: Row) -> str:
    """The text of a row's tokens that carry loss, one reply after the other, without special tokens.

    A character that the row's end cuts in two is written as U+FFFD.
    """
    ids, _ = row
    # Each part is the difference of two prefixes, because a tokenizer may drop the blank at the
    # beginning of whatever it decodes.
    texts = []
    for start, end in _parts(row):
        before, through = (_decode(tokenizer, ids[:place]) for place in (start, end))
        texts.append(through[len(before) :])
    return "".join(texts)


def _parts(row: Row) -> Iterator[tuple[int, int]]:
    """First and one past the last place of each run of tokens that carry loss."""
    _, labels = row
    # The first label is never predicted: the logits before it do not exist.
    places = range(1, len(labels))
    for carries_loss, group in itertools.groupby(places, key=lambda place: labels[place] != IGNORED):
        if carries_loss:
            first, *rest = group
            yield first, first + len(rest) + 1


def _decode(tokenizer: "PreTrainedTokenizerFast", ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
