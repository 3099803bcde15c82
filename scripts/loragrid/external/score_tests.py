"""Tests of one score against another: item by item, exact on counts, or by standard errors."""

from dataclasses import dataclass

import numpy as np

from loragrid.external.directions import is_share
from loragrid.external.runs import ExternalRun, ExternalScore, ScoreKey
from loragrid.statistics import paired_statistics
from loragrid.statistics.sign_flips import Draws

# ASSUME: external runs are judged at the usual 5% with Holm's correction, because no study file
# says otherwise.
ALPHA = 0.05
DRAWS = Draws(9999, seed=0)  # random sign flips, for items that are not right or wrong
UNPAIRED, EXACT = "unpaired z", "exact Fisher"
# ASSUME: below 20 right or wrong items the normal approximation is not good enough.
SMALL_COUNT = 20
# How far a share times its items may be from a whole number: files round shares to four decimals.
NOT_WHOLE = 0.25


@dataclass(frozen=True)
class ScoreTest:
    """An interval and a two-sided p value of a difference, and the test's name."""

    low: float
    high: float
    p: float
    method: str


def score_test(base: ExternalRun, run: ExternalRun, key: ScoreKey) -> ScoreTest | None:
    """The best test that the files allow; None if they state no error that a test could use."""
    return paired(base, run, key) or exact(base, run, key) or unpaired(base.scores[key], run.scores[key], key)


def paired(base: ExternalRun, run: ExternalRun, key: ScoreKey) -> ScoreTest | None:
    """The test item by item; None if the items differ or are not those of the scores."""
    ours, theirs = run.items.get(key, {}), base.items.get(key, {})
    if len(ours) < 2 or ours.keys() != theirs.keys():
        return None
    before, after = (np.array([[items[item] for item in ours]]) for items in (theirs, ours))
    # A score that is no mean over these items was computed over others, or in another way.
    scores = (base.scores[key].value, run.scores[key].value)
    if not np.allclose((before.mean(), after.mean()), scores, rtol=1e-3, atol=1e-4):
        return None
    found = paired_statistics.compare_paired(before, after, confidence=1 - ALPHA, draws=DRAWS)
    return ScoreTest(float(found.low[0]), float(found.high[0]), float(found.p[0]), found.method[0])


def exact(base: ExternalRun, run: ExternalRun, key: ScoreKey) -> ScoreTest | None:
    """Fisher's exact test of two shares with a small count; None for other scores.

    The interval is that of Agresti and Caffo 2000, The American Statistician 54:280: Wald's with one
    right and one wrong item added to each side, which has a width where a share is 0 or 1.
    """
    from scipy.stats import fisher_exact, norm

    scores = (base.scores[key], run.scores[key])
    counted = right_of(scores[0], scores[1], key), right_of(scores[1], scores[0], key)
    if None in counted:
        return None
    (right_before, n_before), (right_after, n_after) = counted
    table = [[right_before, n_before - right_before], [right_after, n_after - right_after]]
    if min(min(row) for row in table) >= SMALL_COUNT:
        return None
    p = float(fisher_exact(table).pvalue)
    shares = np.array([(right_before + 1) / (n_before + 2), (right_after + 1) / (n_after + 2)])
    spread = float(np.sqrt((shares * (1 - shares) / (np.array([n_before, n_after]) + 2)).sum()))
    half = float(norm.ppf(1 - ALPHA / 2)) * spread
    scale = _scale(scores)
    centre = float(shares[1] - shares[0])
    return ScoreTest(max(-1, centre - half) * scale, min(1, centre + half) * scale, p, EXACT)


def right_of(score: ExternalScore, other: ExternalScore, key: ScoreKey) -> tuple[int, int] | None:
    """Right items and items of a share; None if it is none or their number is unknown."""
    scale = _scale((score, other))
    share = score.value / scale
    if not is_share(key[1] or key[0]) or not 0 <= share <= 1:
        return None
    items = score.items or _items_by_error(score, scale)
    # A share of 0 or 1 has an error of 0, which tells no number; both answered the same items.
    items = items or other.items or _items_by_error(other, scale)
    if not items or abs(share * items - round(share * items)) > NOT_WHOLE:
        return None
    return round(share * items), items


def _items_by_error(score: ExternalScore, scale: float) -> int | None:
    """The number of items that a share's standard error belongs to: p(1 − p)/(n − 1) is its square."""
    share, stderr = score.value / scale, (score.stderr or 0) / scale
    if not stderr > 0 or not 0 < share < 1:
        return None
    return round(share * (1 - share) / stderr**2) + 1


def _scale(scores: tuple[ExternalScore, ExternalScore]) -> float:
    """100 for percentages, 1 for shares."""
    return 100.0 if max(score.value for score in scores) > 1 else 1.0


def unpaired(base: ExternalScore, score: ExternalScore, key: ScoreKey) -> ScoreTest | None:
    """z test of the difference of two means by their standard errors, wider than a paired one.

    None without standard errors, or with one of 0, which no sample of items has.
    """
    from scipy.stats import norm

    errors = [standard_error(one, key) for one in (base, score)]
    if None in errors or min(errors) <= 0:
        return None
    spread = float(np.hypot(*errors))
    difference = score.value - base.value
    half = float(norm.ppf(1 - ALPHA / 2)) * spread
    p = 2 * float(norm.sf(abs(difference) / spread))
    return ScoreTest(difference - half, difference + half, p, UNPAIRED)


def standard_error(score: ExternalScore, key: ScoreKey) -> float | None:
    """The stated standard error, or the binomial one of a share of a known number of items."""
    if score.stderr is not None:
        return score.stderr
    scale = 100.0 if score.value > 1 else 1.0
    share = score.value / scale
    if score.items and is_share(key[1] or key[0]) and 0 <= share <= 1:
        return scale * float(np.sqrt(share * (1 - share) / score.items))
    return None
