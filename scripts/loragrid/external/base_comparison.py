"""External runs' scores against their base's, paired if the items are known."""

import re
from dataclasses import dataclass, replace

import numpy as np

from loragrid.errors import UserError
from loragrid.external.runs import ExternalResults, ExternalRun, ExternalScore, ScoreKey
from loragrid.statistics import paired_statistics
from loragrid.statistics.sign_flips import Draws

# ASSUME: external runs are judged at the usual 5% with Holm's correction, because no study file
# says otherwise.
ALPHA = 0.05
DRAWS = Draws(9999, seed=0)  # random sign flips, for items that are not right or wrong
UNPAIRED = "unpaired z"
BASE_NAME = re.compile(r"(^|[^a-z])(base|baseline|untrained|original)([^a-z]|$)")
# Metrics that are a share of right items, whose binomial standard error follows from their number.
SHARE_METRIC = re.compile(r"acc(uracy)?\b|exact_match\b")


@dataclass(frozen=True)
class BaseComparison:
    """One score of a run beside its base's.

    `low`, `high` and `p` are None without standard errors. `higher_is_better` is None if the
    direction is unknown; `verdict` is empty in both cases.
    """

    run: str
    key: ScoreKey
    base: ExternalScore
    score: ExternalScore
    higher_is_better: bool | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    method: str = ""
    verdict: str = ""

    @property
    def difference(self) -> float:
        """Score minus the base's score."""
        return self.score.value - self.base.value

    @property
    def improves(self) -> bool:
        """Whether the score moved in its better direction."""
        return (self.difference > 0) == self.higher_is_better

    @property
    def testable(self) -> bool:
        """Whether the comparison can get a verdict, and so counts as a test."""
        return self.p is not None and self.higher_is_better is not None


def find_base(results: ExternalResults, wanted: str | None) -> str | None:
    """The name of the untrained base, None if there is none.

    It is the run `wanted`, or else the only untrained run whose name says that it is a base.

    Raises `UserError` if no run is called `wanted`.
    """
    if wanted is not None:
        if wanted not in results.runs:
            names = ", ".join(sorted(results.runs))[:300]
            raise UserError(f"--base {wanted}: no run has this name. Fix: use one of {names}")
        return wanted
    # The name is not enough: a "base case" is a tuned run.
    untrained = [name for name, run in results.runs.items() if not run.trained()]
    named = [name for name in untrained if BASE_NAME.search(name.lower())]
    return named[0] if len(named) == 1 else None


def compare_with_base(results: ExternalResults, base: str | None) -> list[BaseComparison]:
    """Every score of every run against the base's, with p values corrected together.

    Empty without a base.
    """
    if base is None:
        return []
    base_run = results.runs[base]
    rows = []
    for run in results.runs.values():
        for key in run.scores if run is not base_run else ():
            if key in base_run.scores:
                higher = results.higher_is_better(key)
                row = BaseComparison(run.name, key, base_run.scores[key], run.scores[key], higher)
                rows.append(_paired(row, run, base_run) or _unpaired(row))
    return _with_verdicts(rows)


def _with_verdicts(rows: list[BaseComparison]) -> list[BaseComparison]:
    """The rows with verdicts by Holm's correction over all rows that can get one."""
    p = np.array([row.p for row in rows if row.testable])
    if not len(p):
        return rows
    corrected = iter(paired_statistics.corrected(p, method="holm"))
    return [_with_verdict(row, float(next(corrected))) if row.testable else row for row in rows]


def _with_verdict(row: BaseComparison, p_corrected: float) -> BaseComparison:
    improvement = row.difference if row.higher_is_better else -row.difference
    return replace(
        row,
        p_corrected=p_corrected,
        # A file holds single trained models: nothing of another seed's.
        verdict=paired_statistics.verdict(improvement, p_corrected, ALPHA, of_setting=False),
    )


def _paired(row: BaseComparison, run: ExternalRun, base: ExternalRun) -> BaseComparison | None:
    """The comparison item by item; None if the items differ or are not those of the scores."""
    ours, theirs = run.items.get(row.key, {}), base.items.get(row.key, {})
    if len(ours) < 2 or ours.keys() != theirs.keys():
        return None
    before, after = (np.array([[items[item] for item in ours]]) for items in (theirs, ours))
    # A score that is no mean over these items was computed over others, or in another way.
    scores = (row.base.value, row.score.value)
    if not np.allclose((before.mean(), after.mean()), scores, rtol=1e-3, atol=1e-4):
        return None
    found = paired_statistics.compare_paired(before, after, confidence=1 - ALPHA, draws=DRAWS)
    return replace(
        row,
        low=float(found.low[0]),
        high=float(found.high[0]),
        p=float(found.p[0]),
        method=found.method[0],
    )


def _unpaired(row: BaseComparison) -> BaseComparison:
    """z test of the difference of two means by their standard errors.

    Its interval is wider than a paired one.
    """
    from scipy.stats import norm

    errors = [_stderr(score, row.key) for score in (row.base, row.score)]
    if None in errors:
        return row
    spread = float(np.hypot(*errors))
    if not spread > 0:
        return row
    half = float(norm.ppf(1 - ALPHA / 2)) * spread
    p = 2 * float(norm.sf(abs(row.difference) / spread))
    return replace(row, low=row.difference - half, high=row.difference + half, p=p, method=UNPAIRED)


def _stderr(score: ExternalScore, key: ScoreKey) -> float | None:
    """The stated standard error, or the binomial one of a share of a known number of items."""
    if score.stderr is not None:
        return score.stderr
    if score.items and SHARE_METRIC.match(key[1]) and 0 <= score.value <= 1:
        return float(np.sqrt(score.value * (1 - score.value) / score.items))
    return None
