"""Keys of conversations, which find duplicates, draw samples and split without the texts."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from loragrid.data.conversation_formats import Conversation
from loragrid.data.near_duplicates import hash_text

# ASSUME: an answer under 20 characters (a label, a number, "yes") links rows only while that leaves
# enough rows to hold out.
SHORT_ANSWER_CHARACTERS = 20
NOT_WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class RowKeys:
    """Keys by which a row is compared with others.

    `digest` identifies the whole conversation; `answers` and `short_answers` are hashes of the
    normalised replies; `prompt` is the normalised text of all user turns.
    """

    row: int
    digest: bytes
    answers: tuple[int, ...]
    short_answers: tuple[int, ...]
    prompt: str


def row_keys(row: int, conversation: Conversation) -> RowKeys:
    """The keys of one conversation; `row` is its number in the source."""
    content = [conversation.messages, conversation.tools]
    whole = json.dumps(content, ensure_ascii=False, sort_keys=True)
    answers, short_answers, prompts = set(), set(), []
    for message in conversation.messages:
        if message["role"] == "user":
            prompts.append(message["content"])
        elif message["role"] == "assistant":
            text = normalise(message["content"])
            kind = short_answers if len(text) < SHORT_ANSWER_CHARACTERS else answers
            kind.add(hash_text(text))
    return RowKeys(
        row=row,
        digest=hashlib.blake2b(whole.encode(), digest_size=16).digest(),
        answers=tuple(sorted(answers)),
        short_answers=tuple(sorted(short_answers)),
        prompt=normalise(" ".join(prompts)),
    )


def normalise(text: str) -> str:
    """The text in one case, without punctuation, with single blanks; ":-)" stays as it is."""
    return NOT_WORDS.sub(" ", text.casefold()).strip() or text.strip()


def drop_duplicates(keys: Sequence[RowKeys]) -> tuple[list[RowKeys], list[int]]:
    """The keys of distinct conversations, the first of each, and the row numbers of the others."""
    seen: set[bytes] = set()
    kept, dropped = [], []
    for key in keys:
        if key.digest in seen:
            dropped.append(key.row)
        else:
            seen.add(key.digest)
            kept.append(key)
    return kept, dropped


def sample_rows(keys: Sequence[RowKeys], *, max_rows: int | None, seed: int) -> list[RowKeys]:
    """A seeded sample of `max_rows` keys in their order; None keeps all.

    Adding rows to the source replaces only a few of the sample.
    """
    if max_rows is None or len(keys) <= max_rows:
        return list(keys)
    # ASSUME: max_rows takes a seeded sample, not the first rows, since files are often sorted by
    # source or topic.
    ranks = [random_rank(key.digest, seed, b"sample") for key in keys]
    in_random_order = sorted(range(len(keys)), key=ranks.__getitem__)
    return [keys[i] for i in sorted(in_random_order[:max_rows])]


def random_rank(digest: bytes, seed: int, purpose: bytes) -> bytes:
    """A place in a random order that depends on the row's text alone: other rows do not move it."""
    return hashlib.blake2b(digest, digest_size=16, key=f"{seed}".encode(), person=purpose).digest()
