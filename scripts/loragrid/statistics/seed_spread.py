"""How much a score varies between training seeds: per setting, and pooled where settings look alike.

A handful of seeds gives a poor variance: two seeds give one degree of freedom, with which nothing
can be proved. So settings share one variance where their own ones agree with it. The thresholds below
keep false verdicts at or below 6 % also where one arm, or every arm but the base case, varies five
times as much as the others; `python -m benchmarks.truth` shows it.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)

# A setting uses the pooled variance unless its own is larger with a p value below this. Generous on
# purpose, and more so for two seeds, with which the test finds a fivefold spread in four of five cases.
OWN_LEVEL, OWN_LEVEL_OF_TWO_SEEDS = 0.1, 0.2
# It leaves the pool, too, if its variance is larger with a p value below this, so that one collapsed
# setting does not widen the intervals of all others.
OUTLIER_LEVEL = 0.01
# With fewer settings or degrees of freedom the test of likeness finds too little.
FEWEST_ARMS, FEWEST_DF = 4, 6


@dataclass(frozen=True)
class SeedSpread:
    """Variance of one run's score under a change of the training seed, on `df` degrees of freedom.

    `pooled`: the variance is that of several settings together.
    """

    variance: float
    df: int
    pooled: bool


def seed_spreads(scores: Mapping[Key, np.ndarray]) -> dict[Key, SeedSpread]:
    """The spread of every setting with two seeds or more; `scores` maps a setting to its runs' scores (k,)."""
    arms = [key for key, own in scores.items() if len(own) > 1]
    if not arms:
        return {}
    df = np.array([len(scores[key]) - 1 for key in arms])
    variances = np.array([np.var(scores[key], ddof=1) for key in arms])
    in_pool = _without_outliers(variances, df)
    pool_df = int(df[in_pool].sum())
    alike = np.zeros(len(arms), dtype=bool)
    if in_pool.sum() >= FEWEST_ARMS and pool_df >= FEWEST_DF:
        alike = in_pool & (_larger_p(variances, df, in_pool) >= own_level(df))
    pool = SeedSpread(float((variances * df)[in_pool].sum() / pool_df), pool_df, pooled=True)
    own = [SeedSpread(float(variance), int(free), pooled=False) for variance, free in zip(variances, df)]
    return {key: pool if alike[place] else own[place] for place, key in enumerate(arms)}


def own_level(df: np.ndarray) -> np.ndarray:
    """The p value below which arms with these degrees of freedom (J,) use their own variance."""
    return np.where(df == 1, OWN_LEVEL_OF_TWO_SEEDS, OWN_LEVEL)


def _without_outliers(variances: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Which arms (J,) are in the pool: all but those that vary far more than the rest, largest first."""
    in_pool = np.ones(len(variances), dtype=bool)
    while in_pool.sum() > 2:
        p = np.where(in_pool, _larger_p(variances, df, in_pool), 1.0)
        worst = int(p.argmin())
        if p[worst] >= OUTLIER_LEVEL:
            break
        in_pool[worst] = False
    return in_pool


def _larger_p(variances: np.ndarray, df: np.ndarray, in_pool: np.ndarray) -> np.ndarray:
    """One-sided p values (J,) of the F test of each arm's variance against that of the others in the pool."""
    from scipy.stats import f as fisher

    squares = variances * df
    others_df = df[in_pool].sum() - df * in_pool
    others = squares[in_pool].sum() - squares * in_pool
    p = np.ones(len(variances))
    # Others without any spread make every spread an outlier; without others there is no test.
    known = others_df > 0
    ratio = np.divide(variances, others / np.maximum(others_df, 1), out=np.full(len(p), np.inf), where=others > 0)
    p[known] = fisher.sf(ratio[known], df[known], others_df[known])
    return np.where(variances > 0, p, 1.0)
