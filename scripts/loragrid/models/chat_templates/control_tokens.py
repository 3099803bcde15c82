"""Control tokens that a message spells out, encoded as the text that they are and never as the token.

`tokenizer(text)` turns "<|im_end|>" inside a message into the token that ends a turn: a forged turn
(https://github.com/huggingface/transformers/issues/29279). The libraries' `split_special_tokens`
applies to a whole text, also to the template's own tokens, and leaves unflagged turn markers alone.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

# Private-use characters stand for spelled-out tokens while the template renders: no tokenizer has tokens of them.
_MASKS = range(0xF0000, 0x10F000, 0x1000)
_GAP = "\N{NULL}gap\N{NULL}"
THOUGHT_TAG = re.compile(r"(?i)[<\[|/]+(think|thinking|thought|start_thinking|end_thinking)[>\]|]+")


@dataclass(frozen=True)
class Masked:
    """Something whose spelled-out control tokens are masked, and the texts behind the masks."""

    value: Any
    texts: dict[str, str]

    def reveal(self, text: str) -> str:
        """`text`, which was made of `value`, with what the masks stand for."""
        for mask, token in self.texts.items():
            text = text.replace(mask * len(token), token)
        return text


def is_thought_tag(token: str) -> bool:
    """Whether a token opens or closes a reply's thoughts, which a model writes itself."""
    return bool(THOUGHT_TAG.fullmatch(token))


def turn_markers(tokenizer: "PreTrainedTokenizerFast", rendered: str) -> frozenset[str]:
    """The added tokens that a template writes around turns; `rendered` is a chat that says nothing."""
    # Some tokenizers do not flag the tokens of their own turns as special.
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    return frozenset(token for token in added if token in rendered and not is_thought_tag(token))


class JoinedEncoding:
    """Tokens with their character ranges, as much of `tokenizers.Encoding` as labels need."""

    def __init__(self, ids: list[int], ranges: list[tuple[int, int]]) -> None:
        self.ids, self._ranges = ids, ranges
        self._starts = np.array([start for start, _ in ranges], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def token_to_chars(self, token: int) -> tuple[int, int]:
        """First and one past the last character of a token."""
        return self._ranges[token]

    def char_to_token(self, character: int) -> int | None:
        """The first token that holds the character, None if there is none."""
        token = int(np.searchsorted(self._starts, character, side="right")) - 1
        if token < 0 or character >= self._ranges[token][1]:
            return None
        # Several tokens share the range of a character that takes several bytes.
        return int(np.searchsorted(self._starts, self._starts[token], side="left"))


class ControlTokens:
    """A tokenizer's control tokens: those flagged special, and the markers of its template's turns.

    Ordinary added tokens, such as <tool_call>, and the tags of thoughts stay tokens wherever a
    message has them, since a model writes them itself.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", *, markers: frozenset[str]) -> None:
        self._tokenizer = tokenizer
        flagged = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self.texts = sorted({text for text in flagged | markers if not is_thought_tag(text)}, key=len, reverse=True)
        # Longest first: a regular expression takes the first alternative that matches. (?!) matches nothing.
        self._search = re.compile("|".join(map(re.escape, self.texts)) or r"(?!)")

    def spelled_out_in(self, value: Any) -> bool:
        """Whether any text in `value`, at any depth, holds a control token."""
        return any(self._search.search(text) for text in _texts(value))

    def mask(self, value: Any) -> Masked:
        """`value` with a mask of equal length for each control token in its texts, at any depth."""
        texts = _texts(value)
        used = {ord(character) for text in texts for character in text if ord(character) >= _MASKS.start}
        first = next(place for place in _MASKS if not any(place <= mask < place + _MASKS.step for mask in used))
        found = sorted({token for text in texts for token in self._search.findall(text)})
        masks = {token: chr(first + number) for number, token in enumerate(found)}
        replaced = _replaced(value, lambda text: self._search.sub(lambda m: masks[m[0]] * len(m[0]), text))
        return Masked(replaced, {mask: token for token, mask in masks.items()})

    def encode(self, rendered: str, masked: Masked) -> JoinedEncoding:
        """Tokens of a text that was rendered with masks: control tokens only where the template wrote them."""
        # Between two of the template's control tokens nothing may become one.
        written = self._tokenizer(rendered, add_special_tokens=False, return_attention_mask=False).encodings[0]
        ids: list[int] = []
        ranges: list[tuple[int, int]] = []
        gap_start = 0
        for token, (start, end) in zip(written.ids, written.offsets, strict=True):
            if token in self._ids:
                self._add_gap(masked.reveal(rendered[gap_start:start]), gap_start, ids, ranges)
                ids.append(token)
                ranges.append((start, end))
                gap_start = end
        self._add_gap(masked.reveal(rendered[gap_start:]), gap_start, ids, ranges)
        return JoinedEncoding(ids, ranges)

    def _add_gap(self, text: str, offset: int, ids: list[int], ranges: list[tuple[int, int]]) -> None:
        if not text:
            return
        # Some tokenizers treat the beginning of a text in another way than text behind a token.
        lead = _GAP if offset else ""
        encoding = self._plain.encode(lead + text, add_special_tokens=False)
        skipped = 1 if lead else 0
        ids += encoding.ids[skipped:]
        shift = offset - len(lead)
        ranges += [(start + shift, end + shift) for start, end in encoding.offsets[skipped:]]

    @cached_property
    def _ids(self) -> frozenset[int]:
        return frozenset(self._tokenizer.convert_tokens_to_ids(text) for text in self.texts)

    @cached_property
    def _plain(self) -> "Tokenizer":
        """The tokenizer without control tokens."""
        from tokenizers import AddedToken, Tokenizer

        files = json.loads(self._tokenizer.backend_tokenizer.to_str())
        for token in files["added_tokens"]:
            # The switch below leaves out what is flagged special: the control tokens, and only those.
            token["special"] = token["content"] in self.texts
        plain = Tokenizer.from_str(json.dumps(files))
        plain.encode_special_tokens = True
        plain.add_tokens([AddedToken(_GAP, normalized=False)])
        return plain


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return []


def _replaced(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_replaced(key, change): _replaced(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, change) for item in value]
    return value
