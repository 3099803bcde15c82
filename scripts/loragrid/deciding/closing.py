"""The chance that more seeds or items close a question, given what was measured already.

By simulation: the true difference and the true spread between seeds are drawn from what the data leave
open, the new runs are drawn from them and added to the finished ones, and the test of settings is applied
step by step, as in `statistics.design_power`. Conditional on the results so far: what was measured
stays, and counts in the end as much as what is added (predictive power: Spiegelhalter, Freedman & Blackburn
1986, Controlled Clinical Trials 7:8; assurance: O'Hagan, Stevens & Campbell 2005, Pharmaceutical
Statistics 4:187).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loragrid.statistics.design_power import shared_variance

# A chance of 80 % is then known to within 1.3 points.
DRAWS = 1000


@dataclass(frozen=True)
class Effect:
    """The belief about a true difference before its own measurement: a normal with this mean and spread."""

    mean: float
    sd: float


@dataclass(frozen=True)
class SpreadBelief:
    """What is known of the variance of a run's score between seeds: an estimate on `df` degrees of freedom.

    `shared`: the same estimate for several arms.
    """

    variance: float
    df: float
    shared: bool


@dataclass(frozen=True)
class ArmSeeds:
    """A trained arm: its `weight` in the comparison (0 if it only shares the spread), its seeds before and after.

    `squares` is the sum of squared deviations of the scores so far.
    """

    weight: float
    before: int
    after: int
    squares: float
    spread: SpreadBelief


@dataclass(frozen=True)
class Noise:
    """Variances per item: `item` of the difference, the same under every seed; `item_seed` of one run's answer.

    `units` are the independent items of the comparison so far.
    """

    item: float
    item_seed: float
    units: float


@dataclass(frozen=True)
class Rule:
    """When the question is closed: a difference proved at `level`, or an interval at `alpha` within the margin.

    `one_sided`: an interval that stays above minus the margin closes it, as does a proved loss that is
    wholly beyond the margin. `margin` None: only a proof closes it.
    """

    level: float
    alpha: float
    margin: float | None
    one_sided: bool = False


@dataclass(frozen=True)
class Case:
    """A comparison as it would be: `estimate` is what was measured so far, None for a new value."""

    estimate: float | None
    effect: Effect
    noise: Noise
    units_after: float
    arms: tuple[ArmSeeds, ...]
    others: tuple[ArmSeeds, ...]


def closing_chance(case: Case, rule: Rule, *, seed: int = 0) -> float:
    """The chance that the comparison closes the question; zero where an arm has one seed."""
    if any(arm.after < 2 for arm in case.arms):
        return 0.0
    rng = np.random.default_rng(seed)
    spreads = _true_spreads(case, rng)
    difference, item_error, seed_errors = _so_far(case, spreads, rng)
    growth = case.units_after / case.noise.units
    if growth > 1:
        grown = case.noise.item / (case.units_after - case.noise.units)
        item_error = (item_error + (growth - 1) * rng.normal(0, np.sqrt(grown), DRAWS)) / growth
    estimate, variances = difference + item_error, []
    for arm, error, spread in zip(case.arms, seed_errors, spreads):
        error, variance = _after(arm, error, spread, case.noise, growth, rng)
        estimate = estimate + arm.weight * error
        variances.append(variance)
    for arm, spread in zip(case.others, spreads[len(case.arms) :]):
        variances.append(_other_variance(arm, spread, case.noise, growth, rng))
    return float(np.mean(_closed(estimate, np.stack(variances, axis=1), case, rule)))


def _true_spreads(case: Case, rng: np.random.Generator) -> list[np.ndarray]:
    """The true variance of each arm's scores: scaled inverse chi-square, one draw for all that share it."""
    drawn: dict[SpreadBelief, np.ndarray] = {}
    found = []
    for arm in (*case.arms, *case.others):
        belief = arm.spread
        if belief not in drawn or not belief.shared:
            drawn[belief] = belief.variance * belief.df / rng.chisquare(belief.df, DRAWS)
        found.append(drawn[belief])
    return found


def _so_far(
    case: Case, spreads: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """True differences, and the errors so far: that of the items, and per arm compared that of its mean score."""
    of_items = np.full(DRAWS, case.noise.item / case.noise.units)
    arms = case.arms
    of_arms = [spread / arm.before if arm.before else np.zeros(DRAWS) for arm, spread in zip(arms, spreads)]
    item_error = rng.normal(0, np.sqrt(of_items))
    errors = [rng.normal(0, np.sqrt(variance)) for variance in of_arms]
    if case.estimate is None:
        return rng.normal(case.effect.mean, case.effect.sd, DRAWS), item_error, errors
    parts = [arm.weight**2 * variance for arm, variance in zip(arms, of_arms)]
    total = np.maximum(of_items + sum(parts), 1e-300)
    prior = case.effect.sd**2
    share = prior / (prior + total)
    mean = case.effect.mean + share * (case.estimate - case.effect.mean)
    difference = rng.normal(mean, np.sqrt(share * total))
    # The errors have to add up to what was measured: each part takes its share of the rest.
    rest = case.estimate - difference - item_error - sum(arm.weight * error for arm, error in zip(arms, errors))
    errors = [error + arm.weight * variance / total * rest for arm, error, variance in zip(arms, errors, of_arms)]
    return difference, item_error + of_items / total * rest, errors


def _after(
    arm: ArmSeeds, error: np.ndarray, spread: np.ndarray, noise: Noise, growth: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The error of an arm's mean score after the change, and the variance of its scores; NaN for one seed."""
    # With more items a run's score varies less: the share of the single answers shrinks.
    answers = np.minimum(noise.item_seed / noise.units / np.maximum(spread, 1e-300), 1.0)
    if growth > 1 and arm.before:
        scale = np.sqrt(answers * (1 - answers) * spread / arm.before)
        of_answers = answers * error + scale * rng.normal(size=DRAWS)
        fresh = np.sqrt(answers * spread / arm.before / (growth - 1)) * rng.normal(size=DRAWS)
        error = error - of_answers + (of_answers + (growth - 1) * fresh) / growth
    shrunk = 1 - answers + answers / growth
    spread = spread * shrunk
    added = arm.after - arm.before
    new = np.sqrt(spread)[:, None] * rng.normal(size=(DRAWS, added))
    total = (arm.before * error + new.sum(axis=1)) / max(arm.after, 1)
    squares = arm.squares * shrunk + _squares(arm.before, error, new)
    return total, squares / (arm.after - 1) if arm.after > 1 else np.full(DRAWS, np.nan)


def _other_variance(
    arm: ArmSeeds, spread: np.ndarray, noise: Noise, growth: float, rng: np.random.Generator
) -> np.ndarray:
    """The variance of the scores of an arm that only shares its spread; its mean does not matter."""
    answers = np.minimum(noise.item_seed / noise.units / np.maximum(spread, 1e-300), 1.0)
    shrunk = 1 - answers + answers / growth
    added = arm.after - max(arm.before, 1)
    new = rng.chisquare(added, DRAWS) if added else 0.0
    return shrunk * (arm.squares + spread * new) / (arm.after - 1)


def _squares(before: int, error: np.ndarray, new: np.ndarray) -> np.ndarray:
    """What new scores add to the sum of squared deviations (Chan, Golub & LeVeque 1983)."""
    added = new.shape[1]
    if not added:
        return np.zeros(len(error))
    mean = new.mean(axis=1)
    within = ((new - mean[:, None]) ** 2).sum(axis=1)
    return within + before * added / (before + added) * (mean - error) ** 2


def _closed(estimate: np.ndarray, variances: np.ndarray, case: Case, rule: Rule) -> np.ndarray:
    """Whether each draw closes the question, by the test of `statistics.setting_contrasts`."""
    from scipy.special import stdtrit

    df = np.array([arm.after - 1 for arm in (*case.arms, *case.others)])
    # An arm with one seed has no spread of its own.
    kept = df > 0
    pooled, own = shared_variance(variances[:, kept], df[kept], len(case.arms))
    factors = np.array([arm.weight**2 / arm.after for arm in case.arms])
    parts = [np.full(DRAWS, case.noise.item / case.units_after), pooled * (factors * ~own).sum(axis=1)]
    dfs = [case.units_after - 1, float(df[kept].sum())]
    for place, factor in enumerate(factors):
        parts.append(np.where(own[:, place], variances[:, place] * factor, 0.0))
        dfs.append(float(df[place]))
    parts = np.stack(parts)
    total = np.maximum(parts.sum(axis=0), 1e-300)
    stderr = np.sqrt(total)

    def half_width(level: float) -> np.ndarray:
        quantiles = -stdtrit(np.array(dfs), level / 2)
        return (parts * quantiles[:, None]).sum(axis=0) / total * stderr

    proved = np.abs(estimate) > half_width(rule.level)
    if rule.margin is None:
        return proved
    half = half_width(rule.alpha)
    if rule.one_sided:
        return (estimate - half > -rule.margin) | (proved & (estimate + half < -rule.margin))
    return proved | (np.abs(estimate) + half < rule.margin)
