"""Learning curves: results over the number of training rows, of data sets that are one source.

Held-out loss falls as a power law of the rows, loss = a + b·rows^-c (Hestness et al. 2017,
arXiv:1712.00409). It has three numbers, so it is fitted only to three or more sizes with two or
more seeds each, whose spread is the error.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from loragrid.comparing.comparisons import side_of
from loragrid.comparing.contrasts import contrast_row
from loragrid.comparing.designs.axis_effects import TOKEN_TOLERANCE
from loragrid.comparing.designs.data_sizes import Origin, origin
from loragrid.comparing.measures import Measure
from loragrid.comparing.study_results import JudgedTables
from loragrid.comparing.terms import Terms
from loragrid.records.outcomes import Outcome
from loragrid.statistics.clustered_means import mean_interval
from loragrid.study.cell_pairs import Place, place_of
from loragrid.study.sections import HELDOUT_LOSS
from loragrid.study.study_file import Study

FEWEST_SIZES, FEWEST_SEEDS = 3, 2
# Codes of a fit that was not made or that shows no power law.
TOO_FEW_SIZES, TOO_FEW_SEEDS, NO_POWER_LAW = "too_few_sizes", "too_few_seeds", "no_power_law"
STEEPEST = 5.0  # exponents beyond it are no power law but a step
CURVE_POINTS = 25


@dataclass(frozen=True)
class Size:
    """One data set of a curve, its training rows, and its runs under all seeds."""

    data: str
    rows: float
    runs: list[Outcome]


def learning_curves(outcomes: list[Outcome], judged: JudgedTables, study: Study) -> list[dict[str, Any]]:
    """Per series of sizes its points on the loss and on the target tasks, and the fitted power law."""
    measures = [measure for measure in judged.measures if measure.name == HELDOUT_LOSS or measure.group == "target"]
    found = []
    for sizes in series(outcomes, study):
        runs = [run for size in sizes for run in size.runs]
        found.append(
            {
                "data": [size.data for size in sizes],
                "rows": [size.rows for size in sizes],
                "seeds": [len(size.runs) for size in sizes],
                "departs": dict(place_of(runs[0].cell.arm, "data")),
                "tokens": tokens_of(sizes),
                "equal_tokens": equal_tokens(sizes),
                "tasks": {m.name: [_point(size, m, judged) for size in sizes] for m in measures},
                "losses": [[run.record.train_rows, run.record.final_heldout_loss] for run in runs if _has_loss(run)],
                "fit": fit(sizes, judged.terms),
            }
        )
    return found


def series(outcomes: list[Outcome], study: Study) -> list[list[Size]]:
    """Runs on data sets of one source with different rows, all other settings equal, by size."""
    groups: dict[tuple[Place, Origin], dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        if outcome.kind == "run" and outcome.record and outcome.record.status == "finished":
            data = outcome.cell.settings.data
            key = place_of(outcome.cell.arm, "data"), origin(study.data, data)
            groups.setdefault(key, {}).setdefault(data, []).append(outcome)
    found = []
    for by_data in groups.values():
        sizes = [
            Size(data, float(np.mean([r.record.train_rows for r in runs])), runs) for data, runs in by_data.items()
        ]
        if len({size.rows for size in sizes}) > 1:
            found.append(sorted(sizes, key=lambda size: size.rows))
    return found


def tokens_of(sizes: list[Size]) -> list[float]:
    """Mean trained tokens of the runs of each size."""
    return [float(np.mean([run.record.tokens for run in size.runs])) for size in sizes]


def equal_tokens(sizes: list[Size]) -> bool:
    """Whether all sizes trained on as many tokens, to within one update: a run ends with a whole one."""
    tokens, runs = tokens_of(sizes), [run.record for size in sizes for run in size.runs]
    update = max(run.tokens / run.steps for run in runs)
    return max(tokens) - min(tokens) <= max(TOKEN_TOLERANCE * min(tokens), update)


def _mean_rows(runs: list[Outcome]) -> float:
    return float(np.mean([run.record.train_rows for run in runs]))


def _point(size: Size, measure: Measure, judged: JudgedTables) -> dict[str, Any] | None:
    """The mean score over seeds with its interval, which holds the spread between seeds if there are two."""
    table = measure.tables[0]
    runs = [run for run in size.runs if run.subject in table.values]
    if not runs:
        return None
    terms = judged.terms
    if len(runs) == len(size.runs) > 1:
        row = contrast_row(measure, [[side_of(runs, 1.0)]], judged.spreads, terms)
        return {"value": row["score"], "low": row["low"], "high": row["high"]} if "low" in row else None
    values = np.mean([table.values[run.subject] for run in runs], axis=0)
    mask = ~np.isnan(values)
    found = mean_interval(
        values[mask],
        weights=table.weights_of(runs[0].subject, mask),
        clusters=table.clusters_of(mask),
        confidence=terms.confidence,
    )
    return {name: found[name] for name in ("value", "low", "high")}


def _has_loss(run: Outcome) -> bool:
    loss = run.record.final_heldout_loss
    return loss is not None and np.isfinite(loss)


def fit(sizes: list[Size], terms: Terms) -> dict[str, Any]:
    """The power law of the runs' final held-out losses, with intervals; or the code of the reason why there is none."""
    points = [
        (run.record.train_rows, run.record.final_heldout_loss) for size in sizes for run in size.runs if _has_loss(run)
    ]
    seeds = [sum(_has_loss(run) for run in size.runs) for size in sizes]
    if len(sizes) < FEWEST_SIZES:
        return {"code": TOO_FEW_SIZES}
    if sum(count >= FEWEST_SEEDS for count in seeds) < FEWEST_SIZES:
        return {"code": TOO_FEW_SEEDS}
    return power_law(np.array(points, dtype=float).T, confidence=terms.confidence)


def power_law(points: np.ndarray, *, confidence: float) -> dict[str, Any]:
    """loss = a + b·rows^-c through `points` (2, n), rows and losses, by least squares (scipy).

    The intervals and the band of the curve are linearised, with t of n - 3 degrees of freedom. `b`
    is the fall from infinite rows to the geometric mean of the rows, `middle`.
    """
    from scipy.optimize import OptimizeWarning, curve_fit
    from scipy.stats import t as student

    rows, losses = points
    # Scaled rows: raised to a power, thousands of them would leave the fit without digits.
    middle = float(np.exp(np.log(rows).mean()))
    spread = max(float(np.ptp(losses)), 1e-9)
    start = [max(0.0, float(losses.min()) - spread), 1.5 * spread, 0.5]
    bounds = ([0, 0, 0], [np.inf, np.inf, STEEPEST])
    try:
        best, covariance = curve_fit(_law, rows / middle, losses, p0=start, bounds=bounds, maxfev=20_000)
    except (RuntimeError, OptimizeWarning):
        return {"code": NO_POWER_LAW}
    # At a bound the linearised error means nothing: the losses rise, or fall in one step.
    at_bound = best[1] <= 1e-6 * spread or not 1e-3 < best[2] < 0.99 * STEEPEST
    if at_bound or not np.isfinite(covariance).all():
        return {"code": NO_POWER_LAW}
    quantile = float(student.ppf(0.5 + confidence / 2, len(rows) - 3))
    half = quantile * np.sqrt(np.diag(covariance))
    grid = np.geomspace(rows.min(), 2 * rows.max(), CURVE_POINTS)
    slopes = _slopes(grid / middle, best)
    band = quantile * np.sqrt(np.einsum("ij,jk,ik->i", slopes, covariance, slopes))
    curve = _law(grid / middle, *best)
    return {
        "code": "fitted",
        "middle": middle,
        **{name: [float(best[i]), float(best[i] - half[i]), float(best[i] + half[i])] for i, name in enumerate("abc")},
        "df": len(rows) - 3,
        "curve": [[float(v) for v in line] for line in (grid, curve, curve - band, curve + band)],
        "at_largest": float(_law(rows.max() / middle, *best)),
        "at_double": [float(curve[-1]), float(curve[-1] - band[-1]), float(curve[-1] + band[-1])],
    }


def _law(rows: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    return a + b * rows**-c


def _slopes(rows: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Derivatives (n, 3) of the law by a, b and c."""
    _, b, c = best
    fall = rows**-c
    return np.stack([np.ones_like(rows), fall, -b * fall * np.log(rows)], axis=1)
