"""Items of scoring tasks that share a run of words with the training rows: n-grams of 8 and 13 words.

The rule is that of GPT-3 (Brown et al. 2020, Language Models are Few-Shot Learners, arXiv:2005.14165,
appendix C): an item is contaminated if any of its n-grams of words, without case and punctuation,
is in the training text. GPT-3 takes an n from 8 to 13 for each benchmark; here both ends are
counted. PaLM (Chowdhery et al. 2022, arXiv:2204.02311, section 8) also has 8-grams, but calls an
item contaminated only if 70 % of them are found. One is enough here, so some of the items with an
8-gram share no more than a common phrase; the 13-grams hold few of those.

GPT-3 ignores a 13-gram of more than ten training documents as boilerplate. In a data set for
fine-tuning that would hide an item that was copied often. Ignored is instead what two items of a
task share: a wording, an instruction, a template. Such words are in the training rows of a task of
the same kind too, and do not show which item they come from. A passage with several questions
therefore counts only together with one of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from loragrid.data.contamination.ngram_index import NgramIndex, Vocabulary, is_among, ngram_hashes, words_of

LENGTHS = (8, 13)
FEWEST = min(LENGTHS)
# A text with fewer words than n is compared as a whole, but below five words anything is found.
SHORTEST = 5
# An n-gram counts if no more distinct items of the task have it. With a limit of 5 % of the items,
# ten plans of the demo's hundred in the training rows gave 36: its four wordings differ in few
# words, so that runs of eight with the same values are in two to five items.
MOST_ITEMS = 1
EXAMPLES = 3
NONE = np.empty(0, np.uint64)


# The name of an item → its texts, one for each answer.
Items = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Match:
    """An n-gram of an item that was found in the training rows, and the number of the first row."""

    item: str
    row: int
    ngram: str


@dataclass(frozen=True)
class Overlap:
    """What became of a task's items, as lists of their names in the task's order.

    `contaminated` maps n to the items that share an n-gram; those of 13 words are among those of 8.
    `too_short` items cannot be checked. `whole` ones are compared as one n-gram, because they have
    fewer than eight words or no eight of their own.
    """

    items: int
    too_short: list[str]
    whole: list[str]
    contaminated: dict[int, list[str]]
    examples: list[Match]


@dataclass(frozen=True)
class _OwnNgrams:
    """Of one item: the hashes of the n-grams that count, by n, and the numbers of words that they have."""

    name: str
    hashes: dict[int, np.ndarray]
    lengths: set[int]
    too_short: bool
    whole: bool


def find_overlaps(tasks: Mapping[str, Items], rows: Iterable[tuple[int, str]]) -> tuple[dict[str, Overlap], int]:
    """Which items of each task share an n-gram with the rows of (number, text); and the number of rows.

    Rows are read as a stream: memory grows with the items alone.
    """
    vocabulary = Vocabulary()
    own = {name: _own_ngrams(items, vocabulary) for name, items in tasks.items()}
    everything = [item for items in own.values() for item in items]
    keys = [hashes for item in everything for hashes in item.hashes.values()]
    lengths = {length for item in everything for length in item.lengths}
    index = NgramIndex(vocabulary, np.concatenate([NONE, *keys]), lengths)
    count = index.search(rows)
    return {name: _overlap(items, index) for name, items in own.items()}, count


def _own_ngrams(items: Items, vocabulary: Vocabulary) -> list[_OwnNgrams]:
    """The n-grams of each item that count."""
    by_item = []
    for texts in items.values():
        words = [vocabulary.add(words_of(text)) for text in texts]
        by_item.append([text for text in words if len(text) >= SHORTEST])
    shared = _shared(items, [[_ngrams(words, FEWEST) for words in texts] for texts in by_item])
    return [_own(name, texts, shared) for name, texts in zip(items, by_item, strict=True)]


def _own(name: str, texts: list[np.ndarray], shared: np.ndarray) -> _OwnNgrams:
    """The n-grams of one item, or its whole texts if it has no 8-gram that other items lack."""
    own = [~is_among(_ngrams(words, FEWEST), shared) for words in texts]
    if any(part.any() for part in own):
        parts = {n: [_with_own(words, part, n) for words, part in zip(texts, own, strict=True)] for n in LENGTHS}
        hashes = {n: np.unique(np.concatenate(parts[n])) for n in LENGTHS}
        lengths = {min(n, len(words)) for words in texts for n in LENGTHS}
        is_whole = max(lengths) < FEWEST
    else:
        everything = np.concatenate([NONE, *(_ngrams(words, len(words)) for words in texts)])
        hashes = dict.fromkeys(LENGTHS, everything)
        lengths = {len(words) for words in texts}
        is_whole = bool(texts)
    return _OwnNgrams(name, hashes, lengths, too_short=not texts, whole=is_whole)


def _ngrams(words: np.ndarray, n: int) -> np.ndarray:
    """The hashes of a text's n-grams; a text of fewer words is one n-gram."""
    ((_, hashes),) = ngram_hashes(words, [min(n, len(words))])
    return hashes


def _shared(items: Items, ngrams: list[list[np.ndarray]]) -> np.ndarray:
    """N-grams of more than `MOST_ITEMS` items; items of equal text count once."""
    # Otherwise no n-gram of an item would count that is in the task twice.
    by_text = {tuple(texts): parts for texts, parts in zip(items.values(), ngrams, strict=True)}
    distinct = [np.unique(np.concatenate(parts)) for parts in by_text.values() if parts]
    values, counts = np.unique(np.concatenate([NONE, *distinct]), return_counts=True)
    return values[counts > MOST_ITEMS]


def _with_own(words: np.ndarray, own: np.ndarray, n: int) -> np.ndarray:
    """The n-grams of a text that hold at least one 8-gram which other items lack, by the text's 8-grams."""
    hashes = _ngrams(words, n)
    # An n-gram holds the 8-grams that begin within its first n - 7 words.
    return hashes[sliding_window_view(own, len(own) - len(hashes) + 1).any(axis=1)]


def _overlap(items: Sequence[_OwnNgrams], index: NgramIndex) -> Overlap:
    contaminated: dict[int, list[str]] = {}
    examples: dict[str, Match] = {}
    # The longest first: it is the better example.
    for n in sorted(LENGTHS, reverse=True):
        contaminated[n] = []
        for item in items:
            found = [index.found[key] for key in item.hashes[n].tolist() if key in index.found]
            if found:
                contaminated[n].append(item.name)
                examples.setdefault(item.name, Match(item.name, *min(found)))
    return Overlap(
        items=len(items),
        too_short=[item.name for item in items if item.too_short],
        whole=[item.name for item in items if item.whole],
        contaminated=contaminated,
        examples=list(examples.values())[:EXAMPLES],
    )
