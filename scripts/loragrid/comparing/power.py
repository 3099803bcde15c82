"""What a test can see at all: the smallest difference that it finds with a stated chance."""

import math
from functools import lru_cache


def smallest_detectable(
    test_stderr: float, *, df: float, alpha: float, power: float, items: int | None = None
) -> float:
    """The smallest true difference that a test at level `alpha` finds with probability `power`.

    A t test's noncentrality, by statsmodels, times the standard error that the test sees. `items`: their number where the
    test is the exact one of right/wrong items. There the spread can not be below what the difference itself brings (a
    difference of d needs a share d of discordant items), and `alpha` is not reached at all under 1 + log2(1/alpha)
    discordant items (Connor 1987, Biometrics 43:207, has the theory).
    """
    found = _noncentrality(float(f"{df:.3g}"), alpha, power)
    if items is None:
        return found * test_stderr
    return min(1.0, max(found * test_stderr, found**2 / items, math.ceil(1 + math.log2(1 / alpha)) / items))


@lru_cache(maxsize=4096)
def _noncentrality(df: float, alpha: float, power: float) -> float:
    """The true difference in standard errors that a two-sided t test on `df` finds with probability `power`."""
    from scipy.optimize import brentq
    from scipy.stats import norm
    from scipy.stats import t as student
    from statsmodels.stats.power import ttest_power

    def missing(effect: float) -> float:
        # With one "observation" the effect size is the noncentrality. A finding on the wrong side is none.
        return ttest_power(effect, 1, alpha / 2, df=df, alternative="larger") - power

    bound = student.isf(alpha / 2, df) + norm.ppf(power)
    while missing(bound) < 0:
        bound *= 2
    return float(brentq(missing, 0.0, bound))


def fewest_units(alpha: float) -> int:
    """Units under which no test by signs, exact McNemar or flips, can reach `alpha`: with n the least p is 2^(1-n)."""
    return math.floor(1 - math.log2(alpha)) + 1
