"""Statistics of paired comparisons: both models answer each item, so each gives a difference.

All functions take many comparisons at once (rows) over the same items (columns), so that a study of
a thousand runs takes seconds. Values are plain arrays; the caller knows what a row means.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from loragrid.comparing.statistics.clustered_means import Units, ratio_error, units_of
from loragrid.comparing.statistics.sign_flips import Draws, flip_test

# Names of the tests, as the tables' `method` column holds them.
MCNEMAR = "exact McNemar"
SEEDS_T = "t with item and seed variance"
# The verdicts, as the tables and compare.json hold them.
BETTER, WORSE, UNSURE = "better", "worse", "can't tell"


@dataclass(frozen=True)
class Paired:
    """R paired comparisons, each array of length R.

    `difference` is b - a. `low` and `high` bound it with the stated confidence for one comparison
    by itself, from `stderr` on `df` degrees of freedom. `p` is two-sided and uncorrected; the test
    cannot give one under `least_p`. `test_stderr` is the standard error under the hypothesis of no
    difference. `units` counts the independent units: items, or clusters of items.
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


@dataclass(frozen=True)
class SeedVariance:
    """Variance of one training run's score under a change of seed, with its degrees of freedom."""

    variance: float
    df: int


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
    )


def with_seed_spread(
    difference: np.ndarray,
    stderr: np.ndarray,
    df: np.ndarray,
    seeds: SeedVariance,
    *,
    share: np.ndarray,
    confidence: float,
) -> dict[str, np.ndarray]:
    """Comparisons of settings, arrays of equal length, widened by the seeds' variance.

    Returns p, low, high, stderr and df.

    The variances of items (`stderr` on `df`) and of `seeds` add. `share` is 1/seeds of a + 1/seeds
    of b, without the side that is an untrained base: a base has no seed. The degrees of freedom of
    the sum are those of Satterthwaite 1946, Biometrics Bulletin 2:110.
    """
    from scipy.stats import t as student

    # The items' variance already holds what a seed does to single items, so adding the whole seed
    # variance counts that part twice. The intervals are too wide rather than too narrow.
    of_items, of_seeds = stderr**2, seeds.variance * share
    total = of_items + of_seeds
    # Two settings that agree on every item under every seed have no variance at all: p = 1, and any
    # df will do.
    with np.errstate(divide="ignore", invalid="ignore"):
        both = np.where(total > 0, total**2 / (of_items**2 / df + of_seeds**2 / seeds.df), 1.0)
        p = np.where(total > 0, 2 * student.sf(np.abs(difference) / np.sqrt(total), both), 1.0)
    half = student.ppf(0.5 + confidence / 2, both) * np.sqrt(total)
    return {"p": p, "low": difference - half, "high": difference + half, "stderr": np.sqrt(total), "df": both}


def pooled_seed_variance(groups: list[np.ndarray]) -> SeedVariance:
    """Variance of scores between seeds, pooled over settings (each an array of scores).

    Without any setting of several seeds it is zero on 0 degrees of freedom.
    """
    df = sum(len(group) - 1 for group in groups)
    if df == 0:
        return SeedVariance(0.0, 0)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return SeedVariance(squares / df, df)


def corrected(p: np.ndarray, *, method: str) -> np.ndarray:
    """p values corrected for their number, by statsmodels. NaN stays NaN and does not count.

    `holm` bounds the chance of a single false claim (Holm 1979, Scandinavian Journal of Statistics
    6:65) and holds however the comparisons depend on each other, as those that share a base do.
    `bh` bounds the share of false claims (Benjamini & Hochberg 1995, Journal of the Royal
    Statistical Society B 57:289).
    """
    from statsmodels.stats.multitest import multipletests

    out = np.full(len(p), np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        out[tested] = multipletests(p[tested], method={"holm": "holm", "bh": "fdr_bh"}[method])[1]
    return out


def verdict(improvement: float, p_corrected: float, alpha: float) -> str:
    """`BETTER`, `WORSE` or `UNSURE`; a positive `improvement` favours the second model."""
    # Written so that NaN, which compares as False, is `UNSURE` too.
    if not p_corrected < alpha or improvement == 0:
        return UNSURE
    return BETTER if improvement > 0 else WORSE
