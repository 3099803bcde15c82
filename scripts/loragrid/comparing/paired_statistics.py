"""Statistics of paired comparisons: each item is answered by both models, so what counts is the difference per item.

All functions take many comparisons at once (rows) over the same items (columns): a study of a thousand runs takes
seconds. Values are plain arrays; what a row means is the caller's matter.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from loragrid.comparing.clustered_means import Units, ratio_error, units_of
from loragrid.comparing.sign_flips import flip_test

MCNEMAR = "exact McNemar"
SEEDS_T = "t with item and seed variance"


@dataclass(frozen=True)
class Paired:
    """R paired comparisons, arrays of length R. `difference` is b - a; `low` and `high` bound it with the stated
    confidence, for one comparison by itself, from `stderr` on `df` degrees of freedom; `p` is two-sided and uncorrected,
    and can never be under `least_p`. `test_stderr` is the standard error that the test sees where there is no difference;
    `units` is the number of independent units (items, or clusters of items)."""

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


def compare_paired(
    a: np.ndarray,
    b: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    confidence: float,
    draws: int,
    seed: int,
) -> Paired:
    """Compare `b` with `a`, both (R, n): R comparisons over the same n items, no NaN, n ≥ 2.

    Right/wrong values (all 0 or 1, no clusters, equal weights) get the exact McNemar test and the interval of Bonett and
    Price; all others the sign-flip permutation test and the t interval on per-unit sums. `weights` (n,) make the
    difference a weighted mean, as a loss per token is; `clusters` (n,) name items that stand or fall together.
    """
    difference = np.atleast_2d(b - a).astype(float)
    weights = np.ones(difference.shape[1]) if weights is None else np.asarray(weights, float)
    whole = clusters is None and np.all(weights == weights[0])
    if whole and np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all():
        return _right_or_wrong(difference, confidence)
    return _by_units(units_of(difference, weights, clusters), confidence=confidence, draws=draws, seed=seed)


def _right_or_wrong(difference: np.ndarray, confidence: float) -> Paired:
    """Exact McNemar test (McNemar 1947, Psychometrika 12:153; exact form as in Fagerland, Lydersen & Laake 2013, BMC Medical
    Research Methodology 13:91), by statsmodels; interval of Bonett & Price 2012, Journal of Educational and Behavioral
    Statistics 37:479: Wald with one observation added to each discordant cell. Neither library offers a paired one; it is
    among those recommended by Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33:2850.
    """
    from scipy.stats import norm

    n = difference.shape[1]
    gained, lost = (difference > 0).sum(axis=1), (difference < 0).sum(axis=1)
    p = np.array([_mcnemar(int(g), int(lo)) for g, lo in zip(gained, lost)])
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
        test_stderr=np.sqrt((up + down) / n),
        df=n - 1,
        least_p=0.5 ** (n - 1),
        units=n,
        binary=True,
        method=[MCNEMAR] * len(difference),
    )


@lru_cache(maxsize=65536)
def _mcnemar(gained: int, lost: int) -> float:
    from statsmodels.stats.contingency_tables import mcnemar

    # With nothing discordant statsmodels divides by zero; the exact test of an empty binomial has p = 1.
    return float(mcnemar([[0, gained], [lost, 0]], exact=True).pvalue) if gained + lost else 1.0


def _by_units(units: Units, *, confidence: float, draws: int, seed: int) -> Paired:
    """Weighted mean difference, its t interval, and the p value of a sign-flip permutation test of the units' sums."""
    from scipy.stats import t as student

    mean, stderr, df = ratio_error(units)
    half = student.ppf(0.5 + confidence / 2, df) * stderr
    found = flip_test(units.sums, mean, stderr, df, draws=draws, seed=seed)
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
    *,
    seed_variance: float,
    seed_df: int,
    share: np.ndarray,
    confidence: float,
) -> dict[str, np.ndarray]:
    """Widen comparisons of settings, arrays of equal length, by the spread between seeds: p, low, high, stderr, df.

    The variances of items (`stderr` on `df`) and seeds add; `seed_variance` is that of one training run's score under a
    change of seed and `share` = 1/seeds of a + 1/seeds of b, without the side that is an untrained base. What a seed does
    to single items is in both parts, so intervals err on the wide side. Degrees of freedom after Satterthwaite 1946,
    Biometrics Bulletin 2:110.
    """
    from scipy.stats import t as student

    items, seeds = stderr**2, seed_variance * share
    total = items + seeds
    with np.errstate(divide="ignore", invalid="ignore"):
        both = np.where(total > 0, total**2 / (items**2 / df + seeds**2 / seed_df), 1.0)
        p = np.where(total > 0, 2 * student.sf(np.abs(difference) / np.sqrt(total), both), 1.0)
    half = student.ppf(0.5 + confidence / 2, both) * np.sqrt(total)
    return {"p": p, "low": difference - half, "high": difference + half, "stderr": np.sqrt(total), "df": both}


def pooled_seed_variance(groups: list[np.ndarray]) -> tuple[float, int]:
    """Variance of scores between seeds, pooled over settings (each an array of scores), and its degrees of freedom."""
    df = sum(len(group) - 1 for group in groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return (squares / df, df) if df else (0.0, 0)


def corrected(p: np.ndarray, *, method: str) -> np.ndarray:
    """p values corrected for their number: `holm` (Holm 1979, Scandinavian Journal of Statistics 6:65) or `bh` (Benjamini &
    Hochberg 1995, Journal of the Royal Statistical Society B 57:289), by statsmodels. NaN stays NaN and does not count."""
    from statsmodels.stats.multitest import multipletests

    out = np.full(len(p), np.nan)
    asked = ~np.isnan(p)
    if asked.any():
        out[asked] = multipletests(p[asked], method={"holm": "holm", "bh": "fdr_bh"}[method])[1]
    return out


def verdict(improvement: float, p_corrected: float, alpha: float) -> str:
    """`better`, `worse` or `can't tell`; `improvement` is positive where the second model is the better one."""
    if not p_corrected < alpha or improvement == 0:
        return "can't tell"
    return "better" if improvement > 0 else "worse"
