"""Statistics of paired comparisons: each item is answered by both models, so what counts is the difference per item.

All functions take many comparisons at once (rows) over the same items (columns): a study of a thousand runs takes
seconds. Values are plain arrays; what a row means is the caller's matter.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

MCNEMAR = "exact McNemar"
PERMUTATION = "sign-flip permutation"
PERMUTATION_TAIL = "sign-flip permutation, tail by paired t"
SEEDS_T = "t with item and seed variance"
FEWEST_EXCEEDANCES = 10
FEWEST_FOR_TAIL = 20


@dataclass(frozen=True)
class Paired:
    """R paired comparisons, arrays of length R. `difference` is b - a; `low` and `high` bound it with the stated
    confidence, for one comparison by itself; `p` is two-sided and uncorrected; `spread` is the standard deviation per
    unit that the test sees; `units` is the number of independent units (items, or clusters of items)."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    stderr: np.ndarray
    spread: np.ndarray
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
    sums, sizes = _per_unit(difference, weights, clusters)
    return _by_units(sums, sizes, confidence=confidence, draws=draws, seed=seed)


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
        spread=np.sqrt(up + down),
        units=n,
        binary=True,
        method=[MCNEMAR] * len(difference),
    )


@lru_cache(maxsize=65536)
def _mcnemar(gained: int, lost: int) -> float:
    from statsmodels.stats.contingency_tables import mcnemar

    # With nothing discordant statsmodels divides by zero; the exact test of an empty binomial has p = 1.
    return float(mcnemar([[0, gained], [lost, 0]], exact=True).pvalue) if gained + lost else 1.0


def _per_unit(
    difference: np.ndarray, weights: np.ndarray, clusters: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of weighted differences per unit, (R, K), and the units' total weights, (K,)."""
    weighted = difference * weights
    if clusters is None:
        return weighted, weights
    _, unit = np.unique(clusters, return_inverse=True)
    count = int(unit.max()) + 1
    member = np.zeros((len(unit), count))
    member[np.arange(len(unit)), unit] = 1.0
    return weighted @ member, weights @ member


def _by_units(sums: np.ndarray, sizes: np.ndarray, *, confidence: float, draws: int, seed: int) -> Paired:
    """Weighted mean difference with the unit as what was sampled: linearised error of a ratio (Cochran 1977, Sampling
    Techniques, 2.11; for equal sizes it is that of the paired t test), t interval, sign-flip permutation p value."""
    from scipy.stats import t as student

    count = len(sizes)
    mean = sums.sum(axis=1) / sizes.sum()
    residuals = sums - mean[:, None] * sizes
    stderr = np.sqrt(count / (count - 1) * (residuals**2).sum(axis=1)) / sizes.sum()
    half = student.ppf(0.5 + confidence / 2, count - 1) * stderr
    p, method = _sign_flips(sums, mean, stderr, draws=draws, seed=seed)
    return Paired(
        difference=mean,
        low=mean - half,
        high=mean + half,
        p=p,
        stderr=stderr,
        spread=stderr * np.sqrt(count),
        units=count,
        binary=False,
        method=method,
    )


def _sign_flips(
    sums: np.ndarray, mean: np.ndarray, stderr: np.ndarray, *, draws: int, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Two-sided p values of a sign-flip permutation test, by scipy (exact when all flips fit into `draws`).

    Fisher's randomisation test of paired differences (Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses,
    3.2). With few draws beyond the observed value the share says little, and no p can be under 1/(draws + 1), which a
    correction for many comparisons would turn into "never": from 20 units up such tails are taken from the paired t test
    (approximating the tail is the idea of Knijnenburg et al. 2009, Bioinformatics 25:i161; there with another tail).
    """
    from scipy.stats import permutation_test
    from scipy.stats import t as student

    count = sums.shape[1]
    moved = np.flatnonzero((sums != 0).any(axis=1))
    p = np.ones(len(sums))
    if len(moved):
        batch = max(1, 2**20 // sums[moved].size)
        found = permutation_test(
            (sums[moved],), _mean, permutation_type="samples", vectorized=True, n_resamples=draws, batch=batch, axis=-1,
            rng=np.random.default_rng(seed),
        )  # fmt: skip
        p[moved] = np.minimum(found.pvalue, 1.0)
    method = [PERMUTATION] * len(sums)
    if count >= FEWEST_FOR_TAIL:
        for row in np.flatnonzero(p * (draws + 1) <= 2 * FEWEST_EXCEEDANCES):
            tail = 2 * student.sf(abs(mean[row]) / stderr[row], count - 1) if stderr[row] > 0 else 0.0
            p[row], method[row] = min(p[row], tail), PERMUTATION_TAIL
    return p, method


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(values, axis=axis)


def with_seed_spread(
    difference: np.ndarray,
    stderr: np.ndarray,
    *,
    units: int,
    seed_variance: float,
    seed_df: int,
    share: float,
    confidence: float,
) -> dict[str, np.ndarray]:
    """Widen comparisons of settings by the spread between seeds: p, low, high, stderr.

    The variances of items and seeds add; `seed_variance` is that of one training run's score under a change of seed and
    `share` = 1/seeds of a + 1/seeds of b. Degrees of freedom after Satterthwaite 1946, Biometrics Bulletin 2:110.
    """
    from scipy.stats import t as student

    items, seeds = stderr**2, np.full_like(stderr, seed_variance * share)
    total = items + seeds
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(total > 0, total**2 / (items**2 / max(units - 1, 1) + seeds**2 / seed_df), 1.0)
        p = np.where(total > 0, 2 * student.sf(np.abs(difference) / np.sqrt(total), df), 1.0)
    half = student.ppf(0.5 + confidence / 2, df) * np.sqrt(total)
    return {"p": p, "low": difference - half, "high": difference + half, "stderr": np.sqrt(total), "df": df}


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


def smallest_detectable(spread: np.ndarray, *, units: int, alpha: float, power: float, binary: bool) -> np.ndarray:
    """The smallest true difference that a paired test at level `alpha` finds with probability `power`.

    Noncentral t, solved by statsmodels' TTestPower, times the spread per unit. For right/wrong items the spread can not be
    below what the difference itself brings (a difference of d needs a share d of discordant items), and the exact test can
    not reach `alpha` at all under 1 + log2(1/alpha) discordant items (Connor 1987, Biometrics 43:207, has the theory).
    """
    effect = _detectable_effect(units, alpha, power)
    if not binary:
        return effect * spread
    smallest = np.maximum(effect * spread, effect**2)
    return np.minimum(np.maximum(smallest, np.ceil(1 + np.log2(1 / alpha)) / units), 1.0)


@lru_cache(maxsize=1024)
def _detectable_effect(units: int, alpha: float, power: float) -> float:
    from statsmodels.stats.power import TTestPower

    if units < 3:
        return float("nan")
    return float(np.squeeze(TTestPower().solve_power(nobs=units, alpha=alpha, power=power)))


def verdict(improvement: float, p_corrected: float, alpha: float) -> str:
    """`better`, `worse` or `can't tell`; `improvement` is positive where the second model is the better one."""
    if not p_corrected < alpha or improvement == 0:
        return "can't tell"
    return "better" if improvement > 0 else "worse"


def mean_interval(values: np.ndarray, *, weights: np.ndarray | None, binary: bool, confidence: float) -> dict[str, Any]:
    """Mean of one model's item values with its interval: Wilson's for right/wrong items (statsmodels; Brown, Cai & DasGupta
    2001, Statistical Science 16:101), t otherwise, weighted as a ratio."""
    from scipy.stats import t as student
    from statsmodels.stats.proportion import proportion_confint

    weights = np.ones(len(values)) if weights is None else weights
    mean = float((values * weights).sum() / weights.sum())
    n = len(values)
    if binary:
        low, high = proportion_confint(int(values.sum()), n, alpha=1 - confidence, method="wilson")
        return {"value": mean, "low": float(low), "high": float(high), "stderr": float(np.sqrt(mean * (1 - mean) / n))}
    if n < 2:
        return {"value": mean, "low": float("nan"), "high": float("nan"), "stderr": float("nan")}
    stderr = float(np.sqrt(n / (n - 1) * (((values - mean) * weights) ** 2).sum()) / weights.sum())
    half = float(student.ppf(0.5 + confidence / 2, n - 1)) * stderr
    return {"value": mean, "low": mean - half, "high": mean + half, "stderr": stderr}
