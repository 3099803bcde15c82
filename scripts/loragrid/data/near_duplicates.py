"""Near-duplicate texts by MinHash, without comparing every pair.

MinHash (A. Broder, On the resemblance and containment of documents, 1997) in its one-permutation
form (P. Li, A. Owen, C.-H. Zhang, NIPS 2012), empty bins filled by rotation (A. Shrivastava, P. Li,
ICML 2014), with banding (J. Leskovec, A. Rajaraman, J. Ullman, Mining of Massive Datasets, ch. 3).
The exact Jaccard similarity decides on every pair that shares a band.
"""

# Written by hand to be vectorised over texts: NumPy signs 500 of them per call (times: benchmarks/README.md).

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from loragrid.data.parallel_rows import batches, map_batches

SHINGLE_CHARACTERS = 5
BINS = 128
# Of 8 bins each: a pair of similarity s shares a band with probability 1 − (1 − s⁸)¹⁶, which is
# 0.9999 for 0.9 and 0.06 for 0.5.
BANDS = 16
TEXTS_PER_BATCH = 500  # bounds the memory of the signatures' intermediate arrays
MOST_REPRESENTATIVES = 8
# The standard error of a similarity of 0.9 estimated from 128 bins is 0.027, so an estimate this
# far below the threshold rules a pair out without the exact comparison.
ESTIMATE_MARGIN = 0.1
EMPTY = np.uint32(0xFFFFFFFF)
NUMBERS = re.compile(r"\d+")


class DisjointSets:
    """Disjoint sets over 0 … size-1 (union-find with path halving), named by their smallest members."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, item: int) -> int:
        """The name of the set that holds `item`."""
        parent = self.parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, one: int, other: int) -> None:
        """Merge the sets of two items."""
        low, high = sorted((self.find(one), self.find(other)))
        self.parent[high] = low


def near_duplicate_pairs(texts: Sequence[str], *, threshold: float) -> list[tuple[int, int]]:
    """Pairs of positions whose texts are near duplicates, enough of them to connect each group.

    Near duplicates have a Jaccard similarity of their 5-character shingles ≥ `threshold` and the
    same numbers in the same order. If a ~ b and b ~ c are returned, a ~ c may be left out. A text
    is compared with at most eight others of a bucket, so a bucket of thousands takes linear time.
    """
    if not texts:
        return []
    text_signatures = signatures(texts)
    similarity_test = _SimilarityTest(texts, text_signatures, threshold)
    sets, pairs = DisjointSets(len(texts)), []
    rejected: set[tuple[int, int]] = set()
    for bucket in _buckets(text_signatures, _number_hashes(texts)):
        representatives: list[int] = []
        for item in bucket:
            for other in representatives:
                if sets.find(item) == sets.find(other):
                    break
                if (other, item) in rejected:
                    continue
                if similarity_test.passes(item, other):
                    sets.join(item, other)
                    pairs.append((other, item))
                    break
                rejected.add((other, item))
            else:  # no representative is a near duplicate of this text
                if len(representatives) < MOST_REPRESENTATIVES:
                    representatives.append(item)
    return pairs


def near_duplicates_of(references: Sequence[str], texts: Sequence[str], *, threshold: float) -> list[bool]:
    """Per text whether it is a near duplicate of any reference, as `near_duplicate_pairs` defines it.

    Signatures of the texts are made batch by batch, so memory grows with the references alone.
    """
    if not references or not texts:
        return [False] * len(texts)
    index = _ReferenceIndex(references, threshold)
    found: list[bool] = []
    for start in range(0, len(texts), TEXTS_PER_BATCH):
        found += index.match(texts[start : start + TEXTS_PER_BATCH])
    return found


class _ReferenceIndex:
    """Texts that others are compared with, by their bands."""

    def __init__(self, references: Sequence[str], threshold: float) -> None:
        self.threshold = threshold
        self.signatures = signatures(references)
        self.shingles = [shingles(text) for text in references]
        self.by_key: list[dict[int, list[int]]] = []
        for keys in _band_keys(self.signatures, _number_hashes(references)):
            positions: dict[int, list[int]] = {}
            for position, key in enumerate(keys.tolist()):
                positions.setdefault(key, []).append(position)
            self.by_key.append(positions)

    def match(self, texts: Sequence[str]) -> list[bool]:
        """Per text whether it is a near duplicate of a reference."""
        text_signatures = signatures(texts)
        candidates: list[set[int]] = [set() for _ in texts]
        for keys, positions in zip(_band_keys(text_signatures, _number_hashes(texts)), self.by_key, strict=True):
            for text, key in enumerate(keys.tolist()):
                candidates[text].update(positions.get(key, ()))
        return [
            self._is_near(text, marks, found)
            for text, marks, found in zip(texts, text_signatures, candidates, strict=True)
        ]

    def _is_near(self, text: str, marks: np.ndarray, candidates: set[int]) -> bool:
        if not candidates:
            return False
        positions = np.array(sorted(candidates))
        equal_bins = np.count_nonzero(self.signatures[positions] == marks, axis=1)
        likely = positions[equal_bins >= (self.threshold - ESTIMATE_MARGIN) * BINS]
        own = shingles(text) if len(likely) else frozenset()
        return any(jaccard(own, self.shingles[position]) >= self.threshold for position in likely)


class _SimilarityTest:
    """Whether two texts reach a similarity: first by their signatures, then exactly."""

    def __init__(self, texts: Sequence[str], text_signatures: np.ndarray, threshold: float) -> None:
        self.signatures, self.threshold = text_signatures, threshold
        # Texts of one bucket are compared with the same few others: their shingles are kept.
        self.shingles_of = lru_cache(maxsize=4096)(lambda position: shingles(texts[position]))

    def passes(self, one: int, other: int) -> bool:
        equal_bins = np.count_nonzero(self.signatures[one] == self.signatures[other])
        if equal_bins < (self.threshold - ESTIMATE_MARGIN) * BINS:
            return False
        return jaccard(self.shingles_of(one), self.shingles_of(other)) >= self.threshold


def shingles(text: str) -> frozenset[str]:
    """All substrings of five characters; a shorter text is its own only shingle."""
    starts = range(max(1, len(text) - SHINGLE_CHARACTERS + 1))
    return frozenset(text[start : start + SHINGLE_CHARACTERS] for start in starts)


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection divided by the size of the union."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def signatures(texts: Sequence[str]) -> np.ndarray:
    """MinHash signatures, uint32 of shape (texts, 128): equal bins estimate the similarity."""
    return np.concatenate(list(map_batches(_batch_signatures, None, batches(texts, TEXTS_PER_BATCH))))


def _batch_signatures(_: None, texts: Sequence[str]) -> np.ndarray:
    padded = [text.ljust(SHINGLE_CHARACTERS) for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    owner = np.repeat(np.arange(len(texts)), lengths)
    position = np.arange(len(codes))
    # A shingle must not run on into the next text of the batch.
    starts = position[position + SHINGLE_CHARACTERS <= ends[owner]]
    hashes = np.zeros(len(starts), dtype=np.uint64)
    for offset in range(SHINGLE_CHARACTERS):
        # 0x100000001B3 is the prime of the 64-bit FNV hash; the products wrap around on purpose.
        hashes = hashes * np.uint64(0x100000001B3) + codes[starts + offset]
    hashes = _splitmix64(hashes)
    # One permutation: the low bits of a hash choose the bin, the high bits are minimised in it.
    bins = owner[starts] * BINS + (hashes & np.uint64(BINS - 1)).astype(np.int64)
    values = np.minimum((hashes >> np.uint64(32)).astype(np.uint32), EMPTY - np.uint32(1))
    minima = np.full(len(texts) * BINS, EMPTY)
    np.minimum.at(minima, bins, values)
    return _fill_empty_bins(minima.reshape(len(texts), BINS))


def _fill_empty_bins(minima: np.ndarray) -> np.ndarray:
    """Copy into each empty bin the nearest filled bin to its right, shifted by a constant per step.

    Without this, two short texts would agree in all the bins that neither of them fills.
    """
    filled = minima.copy()
    for distance in range(1, BINS):
        empty = filled == EMPTY
        if not empty.any():
            break
        donor = np.roll(minima, -distance, axis=1)
        take = empty & (donor != EMPTY)
        # The shift tells apart the same value borrowed over different distances.
        filled[take] = donor[take] + np.uint32(distance * 0x9E3779B1 & 0xFFFFFFFF)
    return filled


def _splitmix64(values: np.ndarray) -> np.ndarray:
    """Spread every bit over all 64: SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _number_hashes(texts: Sequence[str]) -> np.ndarray:
    """Hash of the numbers in each text, uint64.

    "8 weeks, 5 days" and "9 weeks, 4 days" are different questions even if all other words agree.
    """
    return np.array([hash_text(" ".join(NUMBERS.findall(text))) for text in texts], dtype=np.uint64)


def _band_keys(text_signatures: np.ndarray, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Per band one 64-bit key of each text, equal for texts with an equal band and equal numbers."""
    width = BINS // BANDS
    for band in range(BANDS):
        keys = numbers.copy()
        for column in range(band * width, (band + 1) * width):
            values = text_signatures[:, column].astype(np.uint64)
            keys = _splitmix64(keys ^ values) + np.uint64(column)
        yield keys


def _buckets(text_signatures: np.ndarray, numbers: np.ndarray) -> list[list[int]]:
    """Positions with an equal band and equal numbers, ascending; lists of one are left out."""
    buckets = []
    # One key per text and band turns the search for equal bands into one sort.
    for keys in _band_keys(text_signatures, numbers):
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        starts = np.concatenate([[0], edges])
        sizes = np.diff(np.concatenate([starts, [len(order)]]))
        shared = sizes > 1
        for start, size in zip(starts[shared], sizes[shared], strict=True):
            buckets.append(order[start : start + size].tolist())
    return buckets


def hash_text(text: str) -> int:
    """A 64-bit hash that is the same in every process; Python's own `hash` is salted."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
