"""Statistics of paired comparisons: both models answer each item, so each gives a difference.

All functions take many comparisons at once (rows) over the same items (columns), so that a study of
a thousand runs takes seconds. Values are plain arrays; the caller knows what a row means.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from loragrid.statistics.clustered_means import Units, ratio_error, units_of, with_doubt
from loragrid.statistics.sign_flips import Draws, flip_test

# Names of the tests, as the tables' `method` column holds them.
MCNEMAR = "exact McNemar"
# The verdicts, as the tables and compare.json hold them.
BETTER, WORSE, UNSURE = "better", "worse", "can't tell"
# What one seed can give: these adapters differ, which says nothing about another seed's.
DIFFER = "adapters differ"


@dataclass(frozen=True)
class Paired:
    """R paired comparisons, each array of length R.

    `difference` is b - a. `low` and `high` bound it with the stated confidence for one comparison
    by itself, from `stderr` on `df` degrees of freedom. `p` is two-sided and uncorrected; the test
    cannot give one under `least_p`. `test_stderr` is the standard error under the hypothesis of no
    difference. `units` counts the independent units: items, or clusters of items. `skewness` is that
    of the units' differences. `contrary` counts the right/wrong items that moved against the
    difference; NaN for other values.
    """

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    stderr: np.ndarray
    test_stderr: np.ndarray
    df: float
    least_p: float
    units: int
    binary: bool
    method: list[str]
    skewness: np.ndarray
    contrary: np.ndarray


def compare_paired(
    a: np.ndarray,
    b: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    confidence: float,
    draws: Draws,
) -> Paired:
    """Compare `b` with `a`, both (R, n): R comparisons over the same n items, no NaN, n ≥ 2.

    Right/wrong values (all 0 or 1, no clusters, equal weights) get the exact McNemar test and the
    interval of Bonett and Price; all others the sign-flip permutation test and the t interval on
    per-unit sums. `weights` (n,) make the difference a weighted mean, as a loss per token is;
    `clusters` (n,) name the group that each item was sampled with.
    """
    difference = np.atleast_2d(b - a).astype(float)
    if weights is None:
        weights = np.ones(difference.shape[1])
    weights = np.asarray(weights, float)
    # McNemar's test counts items, so it holds only for items that are independent and count alike.
    items_count_alike = clusters is None and np.all(weights == weights[0])
    if items_count_alike and np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all():
        return _right_or_wrong(difference, confidence)
    return _by_units(units_of(difference, weights, clusters), confidence=confidence, draws=draws)


def _right_or_wrong(difference: np.ndarray, confidence: float) -> Paired:
    """The exact McNemar test with the Bonett-Price interval, for values that are all 0 or 1.

    Test: McNemar 1947, Psychometrika 12:153; exact form as in Fagerland, Lydersen & Laake 2013, BMC
    Medical Research Methodology 13:91; computed by statsmodels. Interval: Bonett & Price 2012,
    Journal of Educational and Behavioral Statistics 37:479, which is Wald's with one observation
    added to each discordant cell. Neither scipy nor statsmodels has a paired interval; Fagerland,
    Lydersen & Laake 2014, Statistics in Medicine 33:2850, recommend this one.
    """
    from scipy.stats import norm

    n = difference.shape[1]
    gained, lost = (difference > 0).sum(axis=1), (difference < 0).sum(axis=1)
    # The exact test and not the chi-square one: a fine-tuned model often differs on a handful of
    # items only.
    p = np.array([_mcnemar(int(g), int(lo)) for g, lo in zip(gained, lost)])
    # One observation added to each discordant cell: with none at all the plain Wald interval has no
    # width.
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    stderr = np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    half = norm.ppf(0.5 + confidence / 2) * stderr
    centre = up - down
    return Paired(
        difference=difference.mean(axis=1),
        low=np.maximum(centre - half, -1.0),
        high=np.minimum(centre + half, 1.0),
        p=p,
        stderr=stderr,
        # Under no difference gains and losses are equally likely, so the variance is that of the
        # discordant share.
        test_stderr=np.sqrt((up + down) / n),
        df=n - 1,
        # The most extreme table has all n items discordant in one direction: 2 · 0.5^n, two-sided.
        least_p=0.5 ** (n - 1),
        units=n,
        binary=True,
        method=[MCNEMAR] * len(difference),
        skewness=skewness(difference),
        contrary=np.minimum(gained, lost).astype(float),
    )


# A large study asks for the same counts again and again, and statsmodels builds a table for each.
@lru_cache(maxsize=65536)
def _mcnemar(gained: int, lost: int) -> float:
    from statsmodels.stats.contingency_tables import mcnemar

    # Without discordant items statsmodels divides by zero; the exact test of an empty binomial has
    # p = 1.
    if gained + lost == 0:
        return 1.0
    return float(mcnemar([[0, gained], [lost, 0]], exact=True).pvalue)


def _by_units(units: Units, *, confidence: float, draws: Draws) -> Paired:
    """The weighted mean difference with its t interval, and the p value of a sign-flip test.

    The p value comes from flips because they assume no distribution; the interval comes from t
    because inverting the flips would take a search per comparison.
    """
    from scipy.stats import t as student

    mean, stderr, df = ratio_error(units)
    for row in np.flatnonzero(stderr <= 1e-12 * np.abs(mean)):
        # The same difference on every unit: another unit may lack it, so the interval has a width.
        _, doubtful, _ = ratio_error(with_doubt(Units(units.sums[row : row + 1], units.sizes, units.variances)))
        stderr[row] = doubtful[0]
    half = student.ppf(0.5 + confidence / 2, df) * stderr
    found = flip_test(units.sums, mean, stderr, df, draws=draws)
    return Paired(
        difference=mean,
        low=mean - half,
        high=mean + half,
        p=found.p,
        stderr=stderr,
        test_stderr=stderr,
        df=df,
        least_p=found.least_p,
        units=len(units.sizes),
        binary=False,
        method=found.method,
        skewness=skewness(units.sums / units.sizes),
        contrary=np.full(len(mean), np.nan),
    )


def skewness(differences: np.ndarray) -> np.ndarray:
    """Skewness (R,) of differences (R, K) over units; 0 where they are all alike."""
    centred = differences - differences.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=1))
    cubes = (centred**3).mean(axis=1)
    return np.divide(cubes, spread**3, out=np.zeros(len(cubes)), where=spread > 1e-12)


def corrected(p: np.ndarray, *, method: str) -> np.ndarray:
    """p values corrected for their number. NaN stays NaN and does not count.

    `holm` bounds the chance of a single false claim (Holm 1979, Scandinavian Journal of Statistics
    6:65) and holds however the comparisons depend on each other, as those that share a base do.
    `bh` bounds the share of false claims (Benjamini & Hochberg 1995, Journal of the Royal
    Statistical Society B 57:289).
    """
    out = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    if len(tested):
        out[tested] = {"holm": _holm, "bh": _benjamini_hochberg}[method](p[tested])
    return out


def _holm(p: np.ndarray) -> np.ndarray:
    # statsmodels has it too, but collects garbage at every call, which takes a tenth of a second.
    order = np.argsort(p)
    raised = p[order] * np.arange(len(p), 0, -1)
    out = np.empty(len(p))
    out[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return out


def _benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    from scipy.stats import false_discovery_control

    return false_discovery_control(p, method="bh")


def verdict(improvement: float, p_corrected: float, alpha: float, *, of_setting: bool) -> str:
    """`BETTER`, `WORSE` or `UNSURE`; a positive `improvement` favours the second model.

    Not `of_setting`: `DIFFER` instead of the first two, because one seed says nothing of another.
    """
    # Written so that NaN, which compares as False, is `UNSURE` too.
    if not p_corrected < alpha or improvement == 0:
        return UNSURE
    if not of_setting:
        return DIFFER
    return BETTER if improvement > 0 else WORSE
