"""Fisher's randomisation test of paired differences: is the sum of differences larger than under random signs?

See Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses, 3.2.
"""

import itertools
from dataclasses import dataclass

import numpy as np

EXACT = "sign-flip permutation, exact"
DRAWN = "sign-flip permutation"
TAIL = "sign-flip permutation, tail by paired t"
FEWEST_DRAWN = 20  # units; the flips of fewer are all counted


@dataclass(frozen=True)
class Flipped:
    """Two-sided p values (R,), the method of each, and the least p that the test can give."""

    p: np.ndarray
    method: list[str]
    least_p: float


def flip_test(sums: np.ndarray, mean: np.ndarray, stderr: np.ndarray, df: float, *, draws: int, seed: int) -> Flipped:
    """Test sums per unit (R, K). `mean`, `stderr` (R,) and `df` are those of the t test that stands in for a tail too far out
    to be drawn."""
    count = sums.shape[1]
    if count < FEWEST_DRAWN:
        return Flipped(all_flips(sums), [EXACT] * len(sums), 0.5 ** (count - 1))
    p, method = drawn_flips(sums, mean, stderr, df, draws=draws, seed=seed)
    return Flipped(p, method, 0.0)


def all_flips(sums: np.ndarray) -> np.ndarray:
    """Exact two-sided p values (R,) of sums (R, K), over all 2^K flips of signs.

    The flips of each half of the units are listed once, and the pairs of halves that reach the observed sum are counted
    by bisection (Horowitz & Sahni 1974, Journal of the ACM 21:277): 19 units take 2 × 1,024 sums and not 524,288.
    """
    count = sums.shape[1]
    halves = np.split(sums, [count // 2], axis=1)
    flips = [np.array(list(itertools.product((1.0, -1.0), repeat=half.shape[1]))) for half in halves]
    first, second = (half @ flip.T for half, flip in zip(halves, flips))
    second.sort(axis=1)
    p = np.ones(len(sums))
    for row, observed in enumerate(np.abs(sums.sum(axis=1))):
        least = observed - 1e-9 * np.abs(sums[row]).sum()  # equal sums differ by rounding
        reached = len(second[row]) - np.searchsorted(second[row], least - first[row])
        p[row] = min(1.0, 2 * reached.sum() / 2.0**count)
    return p


def drawn_flips(
    sums: np.ndarray, mean: np.ndarray, stderr: np.ndarray, df: float, *, draws: int, seed: int
) -> tuple[np.ndarray, list[str]]:
    """p values (R,) and methods from random flips, by scipy, for units too many to count all flips.

    Where no flip of `draws` reaches the observed sum, its p value is 2/(draws + 1) whatever the data, which a correction for
    many comparisons turns into "never". Only there the tail of the paired t test is taken (extending an empty permutation
    tail by a fitted one is the idea of Knijnenburg et al. 2009, Bioinformatics 25:i161): it leans on the central limit
    theorem, so with few and very skewed units such a p value may be too small; the table names the method.
    """
    from scipy.stats import permutation_test
    from scipy.stats import t as student

    moved = np.flatnonzero((sums != 0).any(axis=1))
    p = np.ones(len(sums))
    if len(moved):
        batch = max(1, 2**20 // sums[moved].size)
        found = permutation_test(
            (sums[moved],), _mean, permutation_type="samples", vectorized=True, n_resamples=draws, batch=batch, axis=-1,
            rng=np.random.default_rng(seed),
        )  # fmt: skip
        p[moved] = np.minimum(found.pvalue, 1.0)
    method = [DRAWN] * len(sums)
    for row in np.flatnonzero(p * (draws + 1) <= 2 * (1 + 1e-9)):
        tail = 2 * student.sf(abs(mean[row]) / stderr[row], df) if stderr[row] > 0 else 0.0
        p[row], method[row] = min(p[row], tail), TAIL
    return p, method


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(values, axis=axis)
