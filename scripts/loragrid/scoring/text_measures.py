"""Measures of texts: repetition in an answer, variety of answers, similarity to a reference."""

import re
from collections.abc import Hashable, Iterable, Sequence


def repetition(tokens: Sequence[Hashable], n: int = 4) -> float:
    """Share of an answer's n-grams that repeat earlier ones: 0 to almost 1 (a loop).

    1 - distinct-n of one text, as "rep-n" in Su et al. 2022, A Contrastive Framework for Neural
    Text Generation (https://arxiv.org/abs/2202.06417). An answer shorter than n tokens has no
    repetition.
    """
    grams = _grams(tokens, n)
    if not grams:
        return 0.0
    return 1.0 - len(set(grams)) / len(grams)


def distinct(answers: Iterable[Sequence[Hashable]], n: int = 2) -> float | None:
    """Distinct n-grams as a share of all n-grams of all answers; None if there are no n-grams.

    Li et al. 2016, A Diversity-Promoting Objective Function (https://arxiv.org/abs/1510.03055). The
    share falls with the amount of text, so compare only sets of answers to the same prompts.
    """
    grams = [gram for answer in answers for gram in _grams(answer, n)]
    if not grams:
        return None
    return len(set(grams)) / len(grams)


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 of two texts, 0 to 1: longest common subsequence of words over both lengths.

    Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries
    (https://aclanthology.org/W04-1013).
    """
    # Equal to the rouge_score package on ASCII text (a test compares them). That package drops
    # words of other scripts and takes a second per job to import nltk.
    ours, theirs = _words(answer), _words(reference)
    if not ours or not theirs:
        return 0.0
    common = _common_subsequence(ours, theirs)
    return 2 * common / (len(ours) + len(theirs))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence; dynamic programming, O(len(a) x len(b))."""
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, start=1):
            above = row[j]
            row[j] = diagonal + 1 if word == other else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def _grams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
