import random

import pytest

from loragrid.scoring.text_measures import distinct, repetition, rouge_l


def test_a_loop_repeats_and_plain_text_does_not():
    assert repetition("one two three four five six seven".split()) == 0.0
    assert repetition(["a", "b"] * 50) == pytest.approx(1 - 2 / 97)
    assert repetition([1, 2, 3]) == 0.0


def test_variety_over_answers():
    assert distinct([["a", "b"], ["a", "b"], ["a", "b"]]) == pytest.approx(1 / 3)
    assert distinct([["a", "b", "c"], ["d", "e"]]) == 1.0
    assert distinct([["a"], []]) is None


def test_rouge_l_equals_the_reference_implementation():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    rng = random.Random(0)
    words = "the cat sat on a mat, and 12 dogs ran; It's Week 3: rest.".split()
    for _ in range(200):
        ours, theirs = (" ".join(rng.choices(words, k=rng.randint(0, 12))) for _ in range(2))
        assert rouge_l(ours, theirs) == pytest.approx(scorer.score(theirs, ours)["rougeL"].fmeasure)


def test_rouge_l_knows_other_scripts():
    assert rouge_l("Ein schöner Tag", "ein SCHÖNER Tag!") == 1.0
    assert rouge_l("今日 は", "明日") == 0.0
