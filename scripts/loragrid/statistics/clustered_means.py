"""Means over clusters of items, with errors that also hold for few clusters of unequal size."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Units:
    """The K independent units that were sampled: single items, or clusters of items.

    `sums` (R, K) are the weighted values added up per unit, `sizes` (K,) the total weights.
    `variances` (K,) compare the variances of the units' sums if all items were alike and
    independent (the working model of `ratio_error`).
    """

    sums: np.ndarray
    sizes: np.ndarray
    variances: np.ndarray


def units_of(values: np.ndarray, weights: np.ndarray, clusters: np.ndarray | None) -> Units:
    """Values (R, n) with weights (n,) added up per unit: single items, or their clusters."""
    weighted = values * weights
    if clusters is None:
        return Units(weighted, weights, weights**2)
    # One matrix product with the (n, K) membership adds up all R comparisons at once.
    _, unit = np.unique(clusters, return_inverse=True)
    member = np.zeros((len(unit), int(unit.max()) + 1))
    member[np.arange(len(unit)), unit] = 1.0
    return Units(weighted @ member, weights @ member, weights**2 @ member)


def ratio_error(units: Units) -> tuple[np.ndarray, np.ndarray, float]:
    """Weighted means (R,), their standard errors (R,) and the degrees of freedom.

    With few units of unequal size the usual linearised error of a ratio is too small and K - 1
    degrees of freedom are too many: its 95% intervals may cover only 80%. So this is the
    bias-reduced error (CR2) with the degrees of freedom of Bell & McCaffrey 2002, Survey Methodology 28:169,
    recommended by Imbens & Kolesár 2016, Review of Economics and Statistics 98:701, written out for
    a regression on a constant. For equal sizes both equal those of the t test.
    """
    sizes, total, variances = units.sizes, units.sizes.sum(), units.variances
    mean = units.sums.sum(axis=1) / total
    # A unit pulls the mean towards itself, so its residual is too small. `left` is the residual's
    # variance under the working model; `scale` restores the unit's own variance.
    left = variances * (1 - 2 * sizes / total) + variances.sum() * (sizes / total) ** 2
    scale = np.divide(variances, left, out=np.ones_like(left), where=left > 0)
    residuals = units.sums - mean[:, None] * sizes
    stderr = np.sqrt((scale * residuals**2).sum(axis=1)) / total
    # Under the working model the squared error is a quadratic form with the matrix M = D - pq' -
    # qp' + V pp'. Matching its first two moments to a chi-square (Satterthwaite) gives trace(M)^2 /
    # trace(M^2) degrees of freedom. The traces are written out so that no K x K matrix is formed:
    # without clusters K is the number of items.
    p, q = np.sqrt(scale) * sizes / total, np.sqrt(scale) * variances
    d, v = scale * variances, variances.sum()
    pp, pq, qq = p @ p, p @ q, q @ q
    trace = d.sum() - 2 * pq + v * pp
    square = d @ d + 2 * (v * (d * p) @ p - 2 * (d * p) @ q) + 2 * (pq**2 + pp * qq) - 4 * v * pp * pq + (v * pp) ** 2
    return mean, stderr, float(trace**2 / square)


def with_doubt(units: Units) -> Units:
    """The units; with one more that shows no difference where all agree exactly.

    A difference that is the same on every unit has no measured variance, but another unit may lack
    it. Bonett & Price 2012 add such observations to proportions for the same reason.
    """
    means = units.sums / units.sizes
    if np.ptp(means) > 1e-12 * np.abs(means).max():
        return units
    return Units(
        np.append(units.sums, np.zeros((len(units.sums), 1)), axis=1),
        np.append(units.sizes, units.sizes.mean()),
        np.append(units.variances, units.variances.mean()),
    )


def mean_interval(
    values: np.ndarray, *, weights: np.ndarray | None, clusters: np.ndarray | None, confidence: float
) -> dict[str, Any]:
    """Mean of one model's item values (n,) as `value`, with `low`, `high` and `stderr`.

    Independent right/wrong items get Wilson's interval, by statsmodels (Brown, Cai & DasGupta 2001,
    Statistical Science 16:101), which stays within 0 and 1; all others the t interval of
    `ratio_error`. One unit alone has no interval: NaN.
    """
    from scipy.stats import t as student
    from statsmodels.stats.proportion import proportion_confint

    n = len(values)
    if weights is None and clusters is None and np.isin(values, (0.0, 1.0)).all():
        mean = float(values.mean())
        low, high = proportion_confint(int(values.sum()), n, alpha=1 - confidence, method="wilson")
        return {"value": mean, "low": float(low), "high": float(high), "stderr": float(np.sqrt(mean * (1 - mean) / n))}
    if weights is None:
        weights = np.ones(n)
    units = units_of(values[None], weights, clusters)
    if len(units.sizes) < 2:
        none = dict.fromkeys(("low", "high", "stderr"), float("nan"))
        return {"value": float(np.average(values, weights=weights)), **none}
    means, errors, df = ratio_error(units)
    mean, stderr = float(means[0]), float(errors[0])
    half = float(student.ppf(0.5 + confidence / 2, df)) * stderr
    return {"value": mean, "low": mean - half, "high": mean + half, "stderr": stderr}
