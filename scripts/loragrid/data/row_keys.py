"""Keys of conversations, which find duplicates, filter, draw and split rows without the texts."""

import hashlib
import json
import re
from dataclasses import dataclass

from loragrid.data.formats.conversation import Conversation, reply_text, whole_text
from loragrid.data.near_duplicates import hash_text

# ASSUME: an answer under 20 characters (a label, a number, "yes") links rows only while that leaves
# enough rows to hold out.
SHORT_ANSWER_CHARACTERS = 20
NOT_WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class RowKeys:
    """Keys by which a row is compared with others.

    `digest` identifies the whole conversation; `answers` and `short_answers` are hashes of the
    normalised replies; `prompt` is the normalised text of all user turns, of plain text the whole.
    `characters` and `turns` count all messages.
    """

    row: int
    digest: bytes
    answers: tuple[int, ...]
    short_answers: tuple[int, ...]
    prompt: str
    characters: int
    turns: int


def row_keys(row: int, conversation: Conversation) -> RowKeys:
    """The keys of one conversation; `row` is its number in the source."""
    content = [conversation.messages, conversation.tools]
    whole = json.dumps(content, ensure_ascii=False, sort_keys=True)
    answers, short_answers, prompts = set(), set(), []
    for message in conversation.messages:
        if message["role"] == "user":
            prompts.append(message["content"])
        elif message["role"] == "assistant":
            text = normalise(reply_text(message))
            kind = short_answers if len(text) < SHORT_ANSWER_CHARACTERS else answers
            kind.add(hash_text(text))
    if not prompts:  # plain text: its only message is what other texts may be near to
        prompts = [message["content"] for message in conversation.messages]
    return RowKeys(
        row=row,
        digest=hashlib.blake2b(whole.encode(), digest_size=16).digest(),
        answers=tuple(sorted(answers)),
        short_answers=tuple(sorted(short_answers)),
        prompt=normalise(" ".join(prompts)),
        characters=sum(len(whole_text(message)) for message in conversation.messages),
        turns=len(conversation.messages),
    )


def normalise(text: str) -> str:
    """The text in one case, without punctuation, with single blanks; ":-)" stays as it is."""
    return NOT_WORDS.sub(" ", text.casefold()).strip() or text.strip()


def random_rank(digest: bytes, seed: int, purpose: bytes) -> bytes:
    """A place in a random order that depends on the row's text alone: other rows do not move it."""
    return hashlib.blake2b(digest, digest_size=16, key=f"{seed}".encode(), person=purpose).digest()
