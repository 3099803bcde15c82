"""Which words of a tuned model's answer its base did not write at that place."""

import re
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

from loragrid.formatting import plural, visible, whole

MOST_CHARACTERS = 9000  # of one answer: about 1,500 words
TALL_CHARACTERS, TALL_LINES = 1500, 18  # from which an answer scrolls in a box
MOST_MARKED = 0.7  # of the words; beyond that marks say no more than "another answer"
# A fence that is never closed runs to the end: answers are often cut at their token limit.
CODE_FENCE = re.compile(r"^```[^\n`]*\n(.*?)(?:^```\s*$|\Z)", flags=re.DOTALL | re.MULTILINE)
WORDS = re.compile(r"\S+\s*|\s+")


def pieces(text: str) -> list[dict[str, Any]]:
    """Text cut into prose and fenced code: [{"kind": "text" or "code", "text"}].

    An empty answer is one empty piece.
    """
    text = visible(text, MOST_CHARACTERS)
    found, place = [], 0
    for fence in CODE_FENCE.finditer(text):
        found.append({"kind": "text", "text": text[place : fence.start()].strip("\n")})
        found.append({"kind": "code", "text": fence[1].rstrip("\n")})
        place = fence.end()
    found.append({"kind": "text", "text": text[place:].strip("\n")})
    return [piece for piece in found if piece["text"]] or [{"kind": "text", "text": ""}]


def is_tall(found: list[dict[str, Any]]) -> bool:
    """Whether an answer is too long to be shown whole beside others."""
    texts = [piece["text"] for piece in found]
    return sum(map(len, texts)) > TALL_CHARACTERS or sum(text.count("\n") + 1 for text in texts) > TALL_LINES


def marked_pieces(text: str, base: str) -> tuple[list[dict[str, Any]], str]:
    """The pieces of an answer, prose with `segments` [(text, whether the base did not write it)].

    Also how many words differ, as a clause; if nearly all do, none is marked. Code is not marked.
    """
    found = pieces(text)
    known = [word.strip() for piece in pieces(base) for word in WORDS.findall(piece["text"])]
    marked = total = 0
    for piece in found:
        if piece["kind"] == "text":
            piece["segments"] = _segments(piece["text"], known)
            marked += sum(len(part.split()) for part, changed in piece["segments"] if changed)
            total += len(piece["text"].split())
    if total and marked > MOST_MARKED * total:
        return pieces(text), "nearly all words differ from the base’s"
    if not marked:
        return found, "no word differs from the base’s" if total else ""
    return found, f"{whole(marked)} of {plural(total, 'word')} marked"


def _segments(text: str, known: list[str]) -> list[tuple[str, bool]]:
    """The text in stretches of words, each with whether the other text lacks it at that place."""
    words = WORDS.findall(text)
    matcher = SequenceMatcher(a=known, b=[word.strip() for word in words], autojunk=False)
    changed = [True] * len(words)
    for block in matcher.get_matching_blocks():
        changed[block.b : block.b + block.size] = [False] * block.size
    stretches = []
    for is_changed, group in groupby(zip(words, changed, strict=True), lambda pair: pair[1]):
        stretch = "".join(word for word, _ in group)
        end = len(stretch.rstrip()) if is_changed else len(stretch)
        # The space behind a marked word is not marked.
        stretches += [(stretch[:end], is_changed), (stretch[end:], False)]
    return [part for part in stretches if part[0]]
