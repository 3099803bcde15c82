"""Trained rows as short text that shows which tokens carry loss."""

from typing import Any

import numpy as np

from loragrid.data.rendering.tokenizing import NO_LOSS, EncodedChat

EXAMPLE_CHARACTERS = 1_500
FIRST_SEGMENTS, LAST_SEGMENTS = 5, 4
ELISION = " … "


def example_segments(tokenizer: Any, row: EncodedChat) -> list[list[Any]]:
    """The row's text as [text, whether it carries loss], read from its tokens and labels.

    Middles are left out, so that the whole has about 1,500 characters; the first reply stays.
    """
    carries = row.labels != NO_LOSS
    edges = [*(np.flatnonzero(np.diff(carries)) + 1).tolist(), len(carries)]
    segments, before = [], ""
    for edge in edges:
        # Each part is the difference of two prefixes, because a tokenizer may drop the blank at the beginning of
        # whatever it decodes.
        through = tokenizer.decode(row.input_ids[:edge].tolist(), skip_special_tokens=False)
        segments.append([through[len(before) :], bool(carries[edge - 1])])
        before = through
    if len(segments) > FIRST_SEGMENTS + LAST_SEGMENTS:
        segments = [*segments[:FIRST_SEGMENTS], [ELISION, False], *segments[-LAST_SEGMENTS:]]
    return _shortened(segments)


def _shortened(segments: list[list[Any]]) -> list[list[Any]]:
    """The segments with the middles of the longest ones left out."""
    # What short segments leave unused goes to the long ones.
    room, shortest_first = EXAMPLE_CHARACTERS, sorted(range(len(segments)), key=lambda n: len(segments[n][0]))
    for done, number in enumerate(shortest_first):
        text = segments[number][0]
        share = room // (len(segments) - done)
        if len(text) > share:
            half = (share - len(ELISION)) // 2
            segments[number][0] = text = text[:half] + ELISION + text[-half:]
        room -= len(text)
    return segments
