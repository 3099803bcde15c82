"""Near-equal texts among many, without comparing each with each.

MinHash (A. Broder, On the resemblance and containment of documents, 1997) in its one-permutation form (P. Li, A. Owen,
C.-H. Zhang, NIPS 2012), empty bins filled by rotation (A. Shrivastava, P. Li, ICML 2014), and banding (J. Leskovec,
A. Rajaraman, J. Ullman, Mining of Massive Datasets, ch. 3). A pair that bands bring together is decided on its exact
Jaccard similarity.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

SHINGLE = 5  # characters
BINS = 128
BANDS = 16  # of 8 bins: a pair of similarity 0.9 shares a band with probability 0.9999, one of 0.5 with 0.06
BATCH = 500
LEADERS = 8  # texts of one bucket that the others are compared with
EMPTY = np.uint32(0xFFFFFFFF)
NUMBERS = re.compile(r"\d+")


class Sets:
    """Disjoint sets over 0 … size-1 (union-find with path halving); a set is named by its smallest member."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, item: int) -> int:
        parent = self.parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.find(one), self.find(other)))
        self.parent[high] = low


def near_equal_pairs(texts: Sequence[str], *, threshold: float) -> list[tuple[int, int]]:
    """Pairs of positions that tie near-equal texts together: Jaccard similarity of 5-character shingles ≥ `threshold`
    and the same numbers in the same order. Chains are left out: if a ~ b and b ~ c are given, a ~ c may be missing.

    A text is compared with at most eight others of a bucket, so that a bucket of thousands stays linear.
    """
    if not texts:
        return []
    marks = signatures(texts)
    # "8 weeks, 5 days" and "9 weeks, 4 days" are different questions however alike the rest is.
    numbers = np.array([hash_text(" ".join(NUMBERS.findall(text))) for text in texts], dtype=np.uint64)
    sets, pairs = Sets(len(texts)), []
    refused: set[tuple[int, int]] = set()
    shingles_of = lru_cache(maxsize=4096)(lambda i: shingles(texts[i]))
    for bucket in _buckets(marks, numbers):
        leaders: list[int] = []
        for item in bucket:
            for leader in leaders:
                if sets.find(item) == sets.find(leader):
                    break
                if (leader, item) in refused:
                    continue
                # The estimate from 128 bins is good to about 0.03 there: well below the threshold needs no exact look.
                alike = np.count_nonzero(marks[item] == marks[leader]) >= (threshold - 0.1) * BINS
                if alike and jaccard(shingles_of(item), shingles_of(leader)) >= threshold:
                    sets.join(item, leader)
                    pairs.append((leader, item))
                    break
                refused.add((leader, item))
            else:
                if len(leaders) < LEADERS:
                    leaders.append(item)
    return pairs


def shingles(text: str) -> frozenset[str]:
    """All runs of five characters; a shorter text is its own only shingle."""
    return frozenset(text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection over size of the union."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def signatures(texts: Sequence[str]) -> np.ndarray:
    """MinHash signatures, uint32 (texts, 128): the share of equal bins estimates the Jaccard similarity."""
    return np.concatenate([_batch_signatures(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)])


def _batch_signatures(texts: Sequence[str]) -> np.ndarray:
    padded = [text.ljust(SHINGLE) for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    owner = np.repeat(np.arange(len(texts)), lengths)
    position = np.arange(len(codes))
    starts = position[position + SHINGLE <= ends[owner]]
    hashes = np.zeros(len(starts), dtype=np.uint64)
    for offset in range(SHINGLE):
        hashes = hashes * np.uint64(0x100000001B3) + codes[starts + offset]
    hashes = _mix(hashes)
    marks = np.full(len(texts) * BINS, EMPTY)
    bins = owner[starts] * BINS + (hashes & np.uint64(BINS - 1)).astype(np.int64)
    np.minimum.at(marks, bins, np.minimum((hashes >> np.uint64(32)).astype(np.uint32), EMPTY - np.uint32(1)))
    return _fill_empty_bins(marks.reshape(len(texts), BINS))


def _fill_empty_bins(marks: np.ndarray) -> np.ndarray:
    """An empty bin takes the value of the nearest filled bin to its right, moved by a constant times the distance."""
    filled = marks.copy()
    for distance in range(1, BINS):
        empty = filled == EMPTY
        if not empty.any():
            break
        donor = np.roll(marks, -distance, axis=1)
        take = empty & (donor != EMPTY)
        filled[take] = donor[take] + np.uint32(distance * 0x9E3779B1 & 0xFFFFFFFF)
    return filled


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014): spreads every bit over all 64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _buckets(marks: np.ndarray, numbers: np.ndarray) -> list[list[int]]:
    """Positions that share a band and their numbers, each list ascending, lists of one left out."""
    buckets = []
    width = BINS // BANDS
    for band in range(BANDS):
        keys = numbers.copy()
        for column in range(band * width, (band + 1) * width):
            keys = _mix(keys ^ marks[:, column].astype(np.uint64)) + np.uint64(column)
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        starts = np.concatenate([[0], edges])
        sizes = np.diff(np.concatenate([starts, [len(order)]]))
        several = sizes > 1
        buckets += [order[at : at + size].tolist() for at, size in zip(starts[several], sizes[several], strict=True)]
    return buckets


def hash_text(text: str) -> int:
    """A 64-bit hash that is the same in every process (Python's own `hash` is not)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
