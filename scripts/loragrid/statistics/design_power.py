"""The power of a design: items × seeds × comparisons, for a difference between two arms.

The draws follow the test of `setting_contrasts` step by step, the choice between an arm's own spread and
the pooled one included, so that the power stated before a study is the power that it has.
"""

from dataclasses import dataclass

import numpy as np

from loragrid.statistics.seed_spread import FEWEST_ARMS, FEWEST_DF, own_level

DRAWS = 4000


@dataclass(frozen=True)
class NoiseVariances:
    """What varies between two arms, as variances of scores.

    `item`: per item, of the arms' difference, the same under every seed. `seed`: of a run's score over
    all items there are. `item_seed`: per item and run, of a single answer under another seed. Two arms
    with n items and k seeds each differ with variance item/n + (2/k) · (seed + item_seed/n).
    """

    item: float
    seed: float
    item_seed: float

    def spread(self, items: int) -> float:
        """Variance of one run's score between seeds on `items` items."""
        return self.seed + self.item_seed / items


@dataclass(frozen=True)
class Design:
    """A comparison that a study will make.

    `items`: independent items (clusters count once). `seeds`: those of each trained arm in it; an
    untrained base has none. `other_seeds`: those of the study's other arms, which share the spread.
    `level`: alpha divided by the family's comparisons. `pairs`: the comparison is the mean over this
    many pairs of arms, as in a factorial grid; `seeds` are then those of all its arms.
    """

    items: int
    seeds: tuple[int, ...]
    other_seeds: tuple[int, ...]
    level: float
    pairs: int = 1

    @property
    def has_error(self) -> bool:
        """Whether its differences have an error: one item has no spread, and neither has one seed."""
        return self.items > 1 and all(count > 1 for count in self.seeds)


def power_of(design: Design, noise: NoiseVariances, difference: float, *, seed: int = 0) -> float:
    """The chance that the test of settings finds a true difference, in its own direction.

    Zero where an arm has one seed, and for one item: the test makes no statement about such a setting.
    """
    if not design.has_error:
        return 0.0
    return float(np.mean(_needed(design, noise, seed) < difference))


def pass_probability(design: Design, noise: NoiseVariances, margin: float, *, seed: int = 0) -> float:
    """The chance that the interval of a setting that is unchanged stays above minus the margin.

    `level` of the design is that of the interval, such as 0.05 for 95 %.
    """
    if not design.has_error:
        return 0.0
    return float(np.mean(_needed(design, noise, seed) < margin))


def smallest_difference(design: Design, noise: NoiseVariances, *, power: float, largest: float = 1.0) -> float:
    """The smallest true difference found with probability `power`; NaN if even `largest` is not.

    It is also the smallest margin that an unchanged setting passes with that probability, where
    `level` of the design is that of the interval.
    """
    if not design.has_error:
        return float("nan")
    found = float(np.quantile(_needed(design, noise, 0), power, method="higher"))
    return found if found <= largest else float("nan")


def _needed(design: Design, noise: NoiseVariances, seed: int) -> np.ndarray:
    """The true difference (DRAWS,) above which each draw is significant: half its interval, less its error.

    The same number bounds the margin: an unchanged setting passes a larger one.
    """
    errors, stderr, quantiles = _draw(design, noise, np.random.default_rng(seed))
    return quantiles * stderr - errors


def _draw(design: Design, noise: NoiseVariances, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors of the estimate, estimated standard errors, and quantiles in standard errors, each (DRAWS,)."""
    from scipy.special import stdtrit

    arms, spread = len(design.seeds), noise.spread(design.items)
    counts = np.array([*design.seeds, *(count for count in design.other_seeds if count > 1)])
    of_items = noise.item / design.items
    factors = np.array([1 / count for count in design.seeds]) / design.pairs**2
    truth = of_items + spread * factors.sum()
    errors = rng.normal(0.0, np.sqrt(truth), DRAWS)
    # A sample variance of normal scores is chi-square, whatever the mean.
    df = counts - 1
    variances = spread * rng.chisquare(df, (DRAWS, len(df))) / df if len(df) else np.zeros((DRAWS, 0))
    items_df = design.items - 1
    items_part = of_items * rng.chisquare(items_df, DRAWS) / items_df
    pooled, own = shared_variance(variances, df, arms)
    parts, dfs = [items_part], [np.full(DRAWS, float(items_df))]
    if arms:
        parts.append(pooled * (factors * ~own).sum(axis=1))
        dfs.append(np.full(DRAWS, float(df.sum())))
        for arm in range(arms):
            parts.append(np.where(own[:, arm], variances[:, arm] * factors[arm], 0.0))
            dfs.append(np.full(DRAWS, float(df[arm])))
    parts, dfs = np.stack(parts), np.stack(dfs)
    total = np.maximum(parts.sum(axis=0), 1e-300)
    quantiles = (parts * -stdtrit(dfs, design.level / 2)).sum(axis=0) / total
    return errors, np.sqrt(total), quantiles


def shared_variance(variances: np.ndarray, df: np.ndarray, arms: int) -> tuple[np.ndarray, np.ndarray]:
    """The pooled variance (draws,), and whether each of the contrast's arms uses its own (draws, arms).

    `variances` (draws, J) are those of the arms' scores, the contrast's first, on `df` (J,).
    """
    from scipy.stats import f as fisher

    total = df.sum()
    if len(df) < FEWEST_ARMS or total < FEWEST_DF:
        return np.zeros(len(variances)), np.ones((len(variances), arms), dtype=bool)
    squares = variances * df
    pooled = squares.sum(axis=1) / total
    others_df = total - df[:arms]
    others = (squares.sum(axis=1)[:, None] - squares[:, :arms]) / others_df
    limit = fisher.isf(own_level(df[:arms]), df[:arms], others_df)
    return pooled, variances[:, :arms] > limit * others
