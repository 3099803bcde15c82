"""The smallest difference that a test finds with a stated probability."""

import math
from functools import lru_cache


def smallest_detectable(
    test_stderr: float, *, df: float, alpha: float, power: float, items: int | None = None
) -> float:
    """The smallest true difference that a test at level `alpha` finds with probability `power`.

    It is the noncentrality of a t test, by statsmodels, times the standard error under no
    difference. `items` is the number of right/wrong items if the exact test compares them; its sample
    size theory is Connor 1987, Biometrics 43:207.
    """
    # Three digits of df change the result by less than is shown, and rows of nearly equal df share
    # one root search.
    found = _noncentrality(float(f"{df:.3g}"), alpha, power)
    if items is None:
        return found * test_stderr
    # A difference of d needs a share d of discordant items, so their number cannot be below d ·
    # items: the standard error is at least sqrt(d / items), and d = found · sqrt(d / items) has the
    # root found² / items.
    by_own_spread = found**2 / items
    # The exact test of m discordant items gives 2^(1-m) at best, so fewer than 1 + log2(1/alpha)
    # never reach `alpha`.
    by_count = math.ceil(1 + math.log2(1 / alpha)) / items
    return min(1.0, max(found * test_stderr, by_own_spread, by_count))


@lru_cache(maxsize=4096)
def _noncentrality(df: float, alpha: float, power: float) -> float:
    """The true difference, in standard errors, that a two-sided t test finds with this power."""
    from scipy.optimize import brentq
    from scipy.stats import norm
    from scipy.stats import t as student
    from statsmodels.stats.power import ttest_power

    def missing(effect: float) -> float:
        # With one "observation" the effect size is the noncentrality. One-sided at alpha/2, because
        # a significant result in the wrong direction does not count as finding the difference.
        return ttest_power(effect, 1, alpha / 2, df=df, alternative="larger") - power

    # Heavy tails at small df make the normal quantile too small a guess; doubling reaches an upper
    # bracket.
    bound = student.isf(alpha / 2, df) + norm.ppf(power)
    while missing(bound) < 0:
        bound *= 2
    return float(brentq(missing, 0.0, bound))


def fewest_units(alpha: float) -> int:
    """The fewest units with which a sign test (exact McNemar or flips) can reach `alpha`.

    n units give a p value of 2^(1-n) at best.
    """
    return math.floor(1 - math.log2(alpha)) + 1
