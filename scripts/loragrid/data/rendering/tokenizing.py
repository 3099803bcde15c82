"""Rendered conversations as token ids and labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loragrid.data.rendering.early_cut import early_cut, keeps_tokens
from loragrid.data.rendering.rendered import RenderedChat
from loragrid.models.chat_templates.template import ChatTemplate

NO_LOSS = -100  # the label that torch's cross entropy ignores


@dataclass(frozen=True, slots=True)
class EncodedChat:
    """A conversation as tokens: `input_ids` and `labels`, int32 of equal length, cut to the limit.

    `full_length`: tokens before the cut; `crosses_border`: a token crosses the border of a reply.
    Both are only of the text's beginning if `begun`: it was cut before it was tokenised. `unknown`: kept tokens may
    belong to replies that were not located.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    full_length: int
    crosses_border: bool
    begun: bool = False
    unknown: bool = False


def encode_chats(
    template: ChatTemplate, chats: Sequence[RenderedChat], *, max_length_tokens: int, loss_on: str
) -> list[EncodedChat]:
    """Tokenise; a label is the token where it carries loss, else -100.

    `loss_on`: "all" (every token but the opening one and replies that are marked not to train on),
    else the chats' replies with their end-of-turn tokens. A token that crosses a reply's border
    counts as part of the reply. Longer conversations lose their end.
    """
    encoded = []
    for chat, (encoding, length) in zip(chats, _encodings(template, chats, max_length_tokens), strict=True):
        input_ids = np.array(encoding.ids, dtype=np.int32)
        if loss_on == "all":
            labels, crosses = _labels_on_all(input_ids, template.tokenizer.bos_token_id), False
            for first, last, _ in _token_ranges(encoding, chat.untrained, length):
                labels[first:last] = NO_LOSS
        else:
            labels, crosses = np.full_like(input_ids, NO_LOSS), False
            for first, last, crosses_here in _token_ranges(encoding, chat.replies, length):
                labels[first:last] = input_ids[first:last]
                crosses |= crosses_here
        encoded.append(
            EncodedChat(
                input_ids=input_ids[:max_length_tokens],
                labels=labels[:max_length_tokens],
                full_length=len(input_ids),
                crosses_border=crosses,
                begun=length < len(chat.text),
                unknown=chat.known is not None and _kept_characters(encoding, max_length_tokens, length) > chat.known,
            )
        )
    return encoded


def _encodings(template: ChatTemplate, chats: Sequence[RenderedChat], max_length_tokens: int) -> list[tuple[Any, int]]:
    """The encoding of each chat, in which messages hold no control token, and how many characters it covers."""
    texts = [chat.text if chat.masked is None else chat.masked_text for chat in chats]
    lengths = [early_cut(text, max_length_tokens=max_length_tokens) or len(text) for text in texts]
    encodings = _tokenised(template, chats, lengths)
    # Where the beginning of a text leaves doubts, all of it is tokenised.
    doubtful = [
        place
        for place, (text, length) in enumerate(zip(texts, lengths, strict=True))
        if length < len(text) and not keeps_tokens(encodings[place], text[:length], max_length_tokens=max_length_tokens)
    ]
    for place in doubtful:
        lengths[place] = len(texts[place])
        (encodings[place],) = _tokenised(template, [chats[place]], [lengths[place]])
    return list(zip(encodings, lengths, strict=True))


def _tokenised(template: ChatTemplate, chats: Sequence[RenderedChat], lengths: Sequence[int]) -> list[Any]:
    """The encoding of the first characters of each chat."""
    pairs = list(zip(chats, lengths, strict=True))
    plain = [chat.text[:length] for chat, length in pairs if chat.masked is None]
    # The template writes the special tokens; the tokenizer would add a second opening token.
    batch = iter(())
    if plain:
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        batch = iter(template.tokenizer(plain, **options).encodings)
    return [
        next(batch) if chat.masked is None else template.control.encode(chat.masked_text[:length], chat.masked)
        for chat, length in pairs
    ]


def _labels_on_all(input_ids: np.ndarray, opening_token: int | None) -> np.ndarray:
    labels = input_ids.copy()
    # Every text begins with it, so there is nothing to learn.
    if len(labels) and labels[0] == opening_token:
        labels[0] = NO_LOSS
    return labels


def _kept_characters(encoding: Any, max_length_tokens: int, length: int) -> int:
    if len(encoding) <= max_length_tokens:
        return length
    return encoding.token_to_chars(max_length_tokens - 1)[1]


def _token_ranges(encoding: Any, places: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int, bool]]:
    return [_token_range(encoding, start, end, length) for start, end in places]


def _token_range(encoding: Any, start: int, end: int, text_length: int) -> tuple[int, int, bool]:
    """First and one past the last token of characters start … end-1; whether one crosses a border."""
    first = _token_at(encoding, start, text_length)
    last = _token_at(encoding, end, text_length)
    crosses = first < len(encoding) and encoding.token_to_chars(first)[0] < start
    if last < len(encoding) and encoding.token_to_chars(last)[0] < end:
        return first, last + 1, True
    return first, last, crosses


def _token_at(encoding: Any, position: int, text_length: int) -> int:
    """The token of the first character from `position` on that has one, else the token count."""
    # Some tokenizers drop characters, such as the blank before a special token.
    for character in range(position, text_length):
        token = encoding.char_to_token(character)
        if token is not None:
            return token
    return len(encoding)


def count_loss_tokens(labels: np.ndarray) -> int:
    """Number of labels that carry loss; the first never does, for lack of a token before it."""
    return int(np.count_nonzero(labels[1:] != NO_LOSS))
