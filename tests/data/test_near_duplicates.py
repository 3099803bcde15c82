"""Near duplicates: the same pairs as an exhaustive search, and signatures that estimate the similarity."""

import itertools
import random

import numpy as np
import pytest

from loragrid.data.near_duplicates import jaccard, near_duplicate_pairs, near_duplicates_of, shingles, signatures
from tests.fixtures.chat_data import sentence


def test_near_duplicate_pairs_are_those_of_an_exhaustive_search():
    rng = random.Random(7)
    texts = []
    for _ in range(60):
        base = sentence(rng, rng.randint(20, 60))
        texts.append(base)
        for _ in range(rng.randint(0, 3)):
            words = base.split()
            for _ in range(rng.randint(1, 2)):
                words[rng.randrange(len(words))] = sentence(rng, 1)
            texts.append(" ".join(words))
    texts += ["", "ab", "ab c", "日本語のとても短い文"]

    def components(pairs):
        groups = {i: {i} for i in range(len(texts))}
        for a, b in pairs:
            joined = groups[a] | groups[b]
            for member in joined:
                groups[member] = joined
        return {frozenset(group) for group in groups.values()}

    sets = [shingles(text) for text in texts]
    exact = [p for p in itertools.combinations(range(len(texts)), 2) if jaccard(sets[p[0]], sets[p[1]]) >= 0.9]
    found = near_duplicate_pairs(texts, threshold=0.9)
    assert len(exact) > 5 and set(found) <= set(exact)
    assert components(found) == components(exact)


def test_near_duplicates_of_references_are_those_of_an_exhaustive_search():
    rng = random.Random(9)
    references = [sentence(rng, rng.randint(20, 60)) for _ in range(40)] + ["ab", ""]
    texts = [sentence(rng, 30) for _ in range(600)] + ["ab", "ac"]
    for _ in range(150):
        words = rng.choice(references[:40]).split()
        for _ in range(rng.randint(0, 3)):
            words[rng.randrange(len(words))] = sentence(rng, 1)
        texts.append(" ".join(words))
    rng.shuffle(texts)
    sets = [shingles(text) for text in references]
    exact = [max(jaccard(shingles(text), own) for own in sets) >= 0.9 for text in texts]
    assert 50 < sum(exact) < 140
    assert near_duplicates_of(references, texts, threshold=0.9) == exact
    assert near_duplicates_of([], texts[:2], threshold=0.9) == [False, False]
    assert near_duplicates_of(references, [], threshold=0.9) == []


def test_a_text_with_other_numbers_is_no_near_duplicate():
    frame = "Please write me a running plan for a marathon in {} weeks, I am a beginner who likes hills"
    texts = [frame.format(8), frame.format(9), frame.format(8).replace("write me", "write")]
    assert near_duplicates_of([frame.format(8)], texts, threshold=0.9) == [True, False, True]


def test_signatures_estimate_the_similarity():
    rng = random.Random(8)
    words = [sentence(rng, 1) for _ in range(200)]
    one, other = " ".join(words), " ".join(words[:170] + [sentence(rng, 1) for _ in range(30)])
    marks = signatures([one, other, "tiny"])
    assert marks.shape == (3, 128) and marks.dtype == np.uint32
    assert np.mean(marks[0] == marks[1]) == pytest.approx(jaccard(shingles(one), shingles(other)), abs=0.12)
    assert np.array_equal(signatures(["x", other]), signatures([other, "x"])[::-1])
