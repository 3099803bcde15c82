"""A set of n-grams of words, as hashes, that is looked for in a stream of texts."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat

import numpy as np

from loragrid.data.near_duplicates import hash_text

WORD = re.compile(r"[^\W_]+")
BATCH_ROWS = 256  # bounds the memory of the hashes
LARGEST_TABLE_BITS = 26  # 64 MiB
# The primes of the 64-bit FNV hash and of SplitMix64. Products wrap around on purpose.
MULTIPLIER, LENGTH_MARK = 0x100000001B3, 0x9E3779B97F4A7C15
NO_WORD = 0  # the value of a word that no item has, and of the border between two rows


def words_of(text: str) -> list[str]:
    """Runs of letters and digits in lower case, after Unicode's NFKC; punctuation separates them."""
    # GPT-3 deletes punctuation. Separating finds a text again after its quotes, dashes or marks of
    # formatting have changed.
    return WORD.findall(unicodedata.normalize("NFKC", text).lower())


class Vocabulary:
    """The words of all items, each with a hash of 64 bits; words that no item has have none."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}

    def add(self, words: Sequence[str]) -> np.ndarray:
        """The words' hashes, uint64; new words are added."""
        for word in words:
            if word not in self._values:
                self._values[word] = hash_text(word)
        return self.values(words)

    def values(self, words: Sequence[str]) -> np.ndarray:
        """The words' hashes, uint64; `NO_WORD` for a word that was not added."""
        # `map` and not a generator: a large data set has fifty million words.
        found = map(self._values.get, words, repeat(NO_WORD))
        return np.fromiter(found, dtype=np.uint64, count=len(words))


def ngram_hashes(values: np.ndarray, lengths: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(n, hashes of all n-grams of the words with these values) for each of the lengths that fits.

    n is part of the hash. The hash is a polynomial whose terms are the words' own hashes, so that
    all lengths together take one pass.
    """
    wanted = set(lengths)
    hashes = values
    for n in range(1, min(max(wanted, default=0), len(values)) + 1):
        if n in wanted:
            yield n, hashes ^ np.uint64(n * LENGTH_MARK % 2**64)
        hashes = hashes[:-1] * np.uint64(MULTIPLIER) + values[n:]


def is_among(hashes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Whether each of the hashes is among the keys, which are sorted: faster than `isin` for few hashes."""
    if not len(keys):
        return np.zeros(len(hashes), dtype=bool)
    nearest = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
    return keys[nearest] == hashes


class NgramIndex:
    """N-grams of items by their hashes, and for each that was found the row and the words.

    Two unequal n-grams among a million of items and a hundred million of rows have the same hash
    with a probability of about 5e-6.
    """

    def __init__(self, vocabulary: Vocabulary, keys: np.ndarray, lengths: Iterable[int]) -> None:
        """`keys`: hashes (K,) by `ngram_hashes` of n-grams of these `lengths`."""
        self.vocabulary, self.lengths = vocabulary, set(lengths)
        self.keys = np.unique(keys)
        self.found: dict[int, tuple[int, str]] = {}
        # Which first bits the keys have. Nearly every n-gram of a row is ruled out by this table,
        # which takes a quarter of the time of bisection.
        bits = min(LARGEST_TABLE_BITS, (8 * len(self.keys) + 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._has_prefix = np.zeros(2**bits, dtype=bool)
        self._has_prefix[self.keys >> self._shift] = True

    def search(self, rows: Iterable[tuple[int, str]]) -> int:
        """Look for the n-grams in rows of (number, text); returns how many rows there were."""
        rows, count = iter(rows), 0
        while batch := list(islice(rows, BATCH_ROWS)):
            count += len(batch)
            if len(self.keys):
                self._search_batch(batch)
        return count

    def _search_batch(self, batch: list[tuple[int, str]]) -> None:
        words: list[str] = []
        starts = []
        for _, text in batch:
            starts.append(len(words))
            words += words_of(text)
            words.append("")  # no n-gram continues in the next row
        for n, hashes in ngram_hashes(self.vocabulary.values(words), self.lengths):
            for place in self._places(hashes):
                key = int(hashes[place])
                if key not in self.found:
                    row, _ = batch[np.searchsorted(starts, place, side="right") - 1]
                    self.found[key] = (row, " ".join(words[place : place + n]))

    def _places(self, hashes: np.ndarray) -> list[int]:
        """The places of `hashes` that are keys."""
        likely = np.flatnonzero(self._has_prefix[hashes >> self._shift])
        return likely[is_among(hashes[likely], self.keys)].tolist()
