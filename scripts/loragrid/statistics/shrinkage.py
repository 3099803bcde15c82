"""The best of several estimates, without the luck that selected it.

The largest of k estimates is too high even if all k true values are equal: of eight by 1.4 standard
errors. So its value is shrunk towards the mean of the estimates that it was chosen from, and its interval
allows for the choice.
"""

from dataclasses import dataclass

import numpy as np

# An estimate this many standard errors below the best had no chance to be chosen by luck. Counting it would
# inflate the spread of true values and hide the luck among the others.
HOPELESS = 4.0


@dataclass(frozen=True)
class Shrunken:
    """The largest of `k` estimates: its `index`, its `raw` value, and its shrunken `value`.

    `low` to `high` covers its true value with the stated confidence, however the k true values lie.
    `contenders` counts the estimates that could have been the largest; `spread` is the standard
    deviation of their true values, estimated.
    """

    index: int
    k: int
    contenders: int
    raw: float
    value: float
    low: float
    high: float
    spread: float


def best_of(
    estimates: np.ndarray,
    stderrs: np.ndarray,
    *,
    df: float = np.inf,
    shared: float = 0.0,
    confidence: float = 0.95,
) -> Shrunken:
    """The largest of the estimates (k,) with standard errors (k,) on `df` degrees of freedom.

    `shared` is the variance of an error that all estimates have in common, as that of one base they are
    compared with: it moves all alike and selects none.

    Value: the empirical Bayes estimate of a normal model with a normal prior (Efron & Morris 1973, JASA
    68:117), the prior's variance after Paule & Mandel 1982, Journal of Research of the NBS 87:377. Interval:
    that of the selected estimate. Its lower end allows for the largest of k errors (Šidák 1967, JASA 62:626);
    its upper end is the usual one, because a choice for being large only raises an estimate.
    """
    estimates, stderrs = np.asarray(estimates, float), np.asarray(stderrs, float)
    k, index = len(estimates), int(np.argmax(estimates))
    # Selection acts on what the estimates do not share.
    own = np.maximum(stderrs**2 - shared, 0.0)
    raw = float(estimates[index])
    behind = raw - estimates
    keep = behind <= HOPELESS * np.sqrt(own + own[index])
    spread = spread_of_truth(estimates[keep], own[keep])
    value = raw
    if keep.sum() > 1 and own[index] > 0:
        # Without any error or spread an estimate would weigh infinitely much.
        weights = 1 / (own[keep] + spread**2 + 1e-12 * own[index])
        centre = float(np.average(estimates[keep], weights=weights))
        value = raw - float(own[index] / (own[index] + spread**2)) * (raw - centre)
    tail = (1 - confidence) / 2
    low = raw - _quantile((1 - tail) ** (1 / k), df) * float(stderrs[index])
    high = raw + _quantile(1 - tail, df) * float(stderrs[index])
    # With many contenders the value may fall below its interval, in one case of three hundred.
    return Shrunken(index, k, int(keep.sum()), raw, max(value, low), low, high, spread)


def spread_of_truth(estimates: np.ndarray, variances: np.ndarray) -> float:
    """Standard deviation of the true values behind estimates (k,) with error variances (k,).

    After Paule & Mandel: the one with which the weighted sum of squares equals its expectation k - 1.
    """
    from scipy.optimize import brentq

    count = len(estimates)
    if count < 2:
        return 0.0

    def excess(added: float) -> float:
        weights = 1 / (variances + added)
        centre = weights @ estimates / weights.sum()
        return float((weights * (estimates - centre) ** 2).sum() - (count - 1))

    # Slightly above zero, because estimates without any error are allowed.
    largest = float(np.ptp(estimates) ** 2)
    smallest = 1e-12 * max(largest, float(variances.max()), 1e-300)
    if largest == 0 or excess(smallest) <= 0:
        return 0.0
    return float(np.sqrt(brentq(excess, smallest, count * largest)))


def _quantile(p: float, df: float) -> float:
    from scipy.special import ndtri, stdtrit

    return float(ndtri(p) if np.isinf(df) else stdtrit(df, p))
