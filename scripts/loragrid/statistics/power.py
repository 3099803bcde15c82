"""The smallest difference that a test finds with a stated probability.

A fine-tuned model also gets items wrong that its base got right, and these contrary flips make a
difference harder to find. They are kept: the model of a true difference is what was measured, plus items
that move the way of the difference.
"""

import math
from functools import lru_cache

import numpy as np

from loragrid.statistics.setting_contrasts import ErrorParts

QUADRATURE_POINTS = 1000


def detectable_in_flips(*, items: int, contrary: int, alpha: float, power: float) -> float:
    """The smallest true difference of two shares that the exact McNemar test finds on `items` items.

    `contrary` of them flip against the difference, and as many with it, even without one. By
    enumeration of all tables (Connor 1987, Biometrics 43:207, gives an approximation); NaN where not
    even flips of every other item are found.
    """
    from scipy.optimize import brentq

    against = max(contrary, 0.5) / items
    largest = 1 - 2 * against
    if largest <= 0 or mcnemar_power(largest, against=against, items=items, alpha=alpha) < power:
        return float("nan")
    return float(
        brentq(lambda d: mcnemar_power(d, against=against, items=items, alpha=alpha) - power, 0.0, largest, xtol=1e-4)
    )


@lru_cache(maxsize=4096)
def mcnemar_power(difference: float, *, against: float, items: int, alpha: float) -> float:
    """The chance that the exact McNemar test finds a true difference, in its own direction.

    Of all items the share `against` moves against the difference, and `against + difference` with it.
    """
    from scipy.stats import binom

    moved = np.arange(items + 1)
    # The fewest gains among `moved` flips with a two-sided p below alpha: 2·P(X >= fewest) < alpha.
    fewest = binom.isf(alpha / 2, moved, 0.5) + 1
    share = 2 * against + difference
    found = binom.sf(fewest - 1, moved, (against + difference) / share)
    return float((binom.pmf(moved, items, min(share, 1.0)) * found).sum())


def detectable_by_t(error: ErrorParts, *, alpha: float, power: float, difference: float, units: int | None) -> float:
    """The smallest true difference that a t test with this error finds.

    `units` is their number if the values are shares of right answers, else None: there a true
    difference d adds d(1-d)/units to the variance, as the measured `difference` did.
    """
    df = round_digits(error.total_df)
    needed = shift(df, round_digits(2 * _tail(error.quantile(alpha), df)), power)
    variance = float(error.variances.sum())
    if units is None:
        return needed * math.sqrt(variance)
    own = min(abs(difference), 1.0)
    rest = max(variance - own * (1 - own) / units, variance / 10)
    # d² = needed² · (rest + d(1 - d)/units), solved for d.
    square = needed**2
    half = square / units / 2
    lead = 1 + square / units
    return (half + math.sqrt(half**2 + lead * square * rest)) / lead


def round_digits(value: float) -> float:
    """Three digits: enough for what is shown, and rows of nearly equal numbers share one root search."""
    return float(f"{value:.3g}")


def _tail(quantile: float, df: float) -> float:
    from scipy.special import stdtr

    return max(float(stdtr(df, -quantile)), 1e-300)


@lru_cache(maxsize=4096)
def shift(df: float, alpha: float, power: float) -> float:
    """The true difference, in standard errors, that a two-sided t test at level `alpha` finds.

    The noncentrality of a t distribution: the power is that of a normal test whose quantile is scaled by
    the estimated standard deviation, averaged over its distribution.
    """
    from scipy.optimize import brentq
    from scipy.special import gammaincinv, ndtr, stdtrit

    middles = (np.arange(QUADRATURE_POINTS) + 0.5) / QUADRATURE_POINTS
    estimated_sd = np.sqrt(gammaincinv(df / 2, middles) * 2 / df)
    # One-sided, because a significant result in the wrong direction does not count as finding it.
    limits = -stdtrit(df, alpha / 2) * estimated_sd
    return float(brentq(lambda effect: ndtr(effect - limits).mean() - power, 0.0, limits[-1] + 10))


def fewest_units(alpha: float) -> int:
    """The fewest units with which a sign test (exact McNemar or flips) can reach `alpha`.

    n units give a p value of 2^(1-n) at best.
    """
    return math.floor(1 - math.log2(alpha)) + 1
