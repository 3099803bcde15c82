"""Differences between settings, each trained under several seeds and scored on the same items.

Two things are random: which items were asked, and under which seeds the settings were trained. All
runs answer the same items, so items and seeds are crossed, and the variance of a difference of means
is the sum of three parts (Brennan 2001, Generalizability Theory, section 4.4): what varies with the
item for every seed, what varies with the seed for every item, and what varies with both. The spread of
scores between seeds already holds the third part, and so does the variance over items of a mean over
seeds; it is estimated by itself and subtracted once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loragrid.statistics.clustered_means import ratio_error, units_of, with_doubt
from loragrid.statistics.seed_spread import SeedSpread

SEEDS_T = "t with item and seed variance"
# A smaller p value would claim a certainty that no t distribution gives.
SMALLEST_P = 1e-50


@dataclass(frozen=True)
class Arm:
    """One setting in a contrast: `values` (k, n) of its k runs on n items, and its `coefficient`.

    `weights` (n,) make its score a weighted mean. `spread` is None for a model without a seed, such
    as an untrained base.
    """

    values: np.ndarray
    weights: np.ndarray
    coefficient: float
    spread: SeedSpread | None


@dataclass(frozen=True)
class SeedShare:
    """What one trained arm's seeds add to a contrast: `factor` (coefficient² / seeds) times its spread."""

    factor: float
    spread: SeedSpread


@dataclass(frozen=True)
class ErrorParts:
    """The parts of a contrast's error: variances (m,) and their degrees of freedom, items first."""

    variances: np.ndarray
    df: np.ndarray

    @classmethod
    def of(cls, of_items: float, items_df: float, seeds: Sequence[SeedShare]) -> "ErrorParts":
        """The parts of items and seeds; arms that share a pooled spread are one part."""
        parts = [(of_items, items_df)]
        pooled = [share for share in seeds if share.spread.pooled]
        if pooled:
            # One estimate, whichever arms it was pooled from.
            spread = pooled[0].spread
            parts.append((sum(share.factor for share in pooled) * spread.variance, spread.df))
        parts += [(share.factor * share.spread.variance, share.spread.df) for share in seeds if not share.spread.pooled]
        variances, df = zip(*parts)
        return cls(np.array(variances), np.array(df, dtype=float))

    @property
    def total_df(self) -> float:
        """Satterthwaite's degrees of freedom of the whole."""
        return satterthwaite(self.variances, self.df)

    def quantile(self, p: float) -> float:
        """The two-sided quantile of the test at level p, in standard errors."""
        from scipy.special import stdtrit

        total = self.variances.sum()
        weights = self.variances / total if total > 0 else np.full(len(self.df), 1 / len(self.df))
        return float(-(weights * stdtrit(self.df, p / 2)).sum())

    def p_value(self, difference: float) -> float:
        """The level at which the quantile equals the difference, never 0; 1 without any difference."""
        from scipy.optimize import brentq

        total = self.variances.sum()
        if difference == 0 or total == 0:
            return 1.0
        wanted = abs(difference) / np.sqrt(total)
        lowest, highest = np.log(SMALLEST_P), 0.0
        if self.quantile(SMALLEST_P) <= wanted:
            return SMALLEST_P
        return float(np.exp(brentq(lambda log_p: self.quantile(np.exp(log_p)) - wanted, lowest, highest, xtol=1e-6)))


@dataclass(frozen=True)
class ContrastTest:
    """A contrast of settings: estimate, interval, two-sided p, and its standard error with its parts."""

    difference: float
    low: float
    high: float
    p: float
    stderr: float
    parts: ErrorParts
    units: int


@dataclass(frozen=True)
class ItemPart:
    """A contrast on one set of items: estimate, variance over items without the seeds' share, df, units.

    `with_seed` is the variance of what varies with item and seed together.
    """

    difference: float
    variance: float
    df: float
    units: int
    with_seed: float


def contrast_test(tasks: Sequence[ItemPart], seeds: Sequence[SeedShare], confidence: float) -> ContrastTest:
    """The mean of a contrast over tasks (usually one), tested with the variances of items and seeds.

    The quantile is the mean of Student's quantiles of all parts, weighted by their variances (Cochran
    & Cox 1957, Experimental Designs, section 4.14). It holds the level for any ratio of the variances,
    which Satterthwaite's degrees of freedom do not with two or three seeds.
    """
    difference = float(np.mean([task.difference for task in tasks]))
    # Different tasks have different items, so their errors are independent and their variances add.
    of_items = np.array([task.variance for task in tasks]) / len(tasks) ** 2
    items_df = satterthwaite(of_items, np.array([task.df for task in tasks]))
    parts = ErrorParts.of(float(of_items.sum()), items_df, seeds)
    stderr = float(np.sqrt(parts.variances.sum()))
    half = parts.quantile(1 - confidence) * stderr
    return ContrastTest(
        difference=difference,
        low=difference - half,
        high=difference + half,
        p=parts.p_value(difference),
        stderr=stderr,
        parts=parts,
        units=sum(task.units for task in tasks),
    )


def satterthwaite(variances: np.ndarray, df: np.ndarray) -> float:
    """Degrees of freedom of a sum of variances (Satterthwaite 1946, Biometrics Bulletin 2:110)."""
    total = variances.sum()
    return float(total**2 / (variances**2 / df).sum()) if total > 0 else float(df.sum())


def item_part(arms: Sequence[Arm], clusters: np.ndarray | None) -> ItemPart:
    """The contrast of the arms' scores on one set of items (n ≥ 2), and its variance over items."""
    sums, weights = np.zeros(arms[0].values.shape[1]), np.zeros(arms[0].values.shape[1])
    shared = 0.0
    for arm in arms:
        share = arm.weights / arm.weights.sum()
        sums += arm.coefficient * share * arm.values.mean(axis=0)
        weights += abs(arm.coefficient) * share
        shared += arm.coefficient**2 * _both(arm, share, clusters)
    units = with_doubt(units_of((sums / weights)[None], weights, clusters))
    _, stderr, df = ratio_error(units)
    scale = weights.sum()
    # What varies with item and seed may exceed the whole by chance; a variance is not negative.
    variance = max(float(stderr[0] * scale) ** 2 - shared, 0.0)
    return ItemPart(float(sums.sum()), variance, df, len(units.sizes), shared)


def _both(arm: Arm, share: np.ndarray, clusters: np.ndarray | None) -> float:
    """Variance of an arm's score from what varies with item and seed together; 0 for one run."""
    runs = len(arm.values)
    if runs < 2 or arm.spread is None:
        return 0.0
    # Per run and item, how far its answer is from the run's own score, weighted.
    influence = share * (arm.values - (arm.values @ share)[:, None])
    units = units_of(influence, np.ones(len(share)), clusters).sums
    residuals = units - units.mean(axis=0)
    # Residuals from a mean over units and a mean over seeds have one degree of freedom less each.
    count = residuals.shape[1]
    return float((residuals**2).sum() * count / ((count - 1) * (runs - 1) * runs))
