"""Scores of runs from elsewhere against those of their base: exact pairs where items are there, else two errors."""

import re
from dataclasses import dataclass, replace

import numpy as np

from loragrid.comparing import paired_statistics
from loragrid.errors import UserError
from loragrid.external.runs import ExternalResults, ExternalRun, ExternalScore, ScoreKey
from loragrid.formatting import plural, visible

# ASSUME: runs from elsewhere are judged at the usual 5% with Holm's correction, as no study file says otherwise.
ALPHA = 0.05
DRAWS = 9999  # of the sign-flip permutation, for items that are not right or wrong
UNPAIRED = "unpaired z"


@dataclass(frozen=True)
class Judged:
    """One run's score beside the base's; numbers None where errors were not given. `higher` is None where nobody says which
    way is better: no verdict then."""

    run: str
    key: ScoreKey
    base: ExternalScore
    score: ExternalScore
    higher: bool | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    method: str = ""
    verdict: str = ""

    @property
    def difference(self) -> float:
        """Score minus base, in the score's own direction."""
        return self.score.value - self.base.value


def find_base(results: ExternalResults, wanted: str | None) -> str | None:
    """The untrained base: the run named, or the only one whose name says so and that nothing shows to be trained (a "base
    case" is a tuned run); None when there is none."""
    if wanted is not None:
        if wanted not in results.runs:
            raise UserError(f"--base {wanted}: no run of that name; there are {', '.join(sorted(results.runs))[:300]}")
        return wanted
    named = [
        name
        for name, run in results.runs.items()
        if re.search(r"(^|[^a-z])(base|baseline|untrained|original)([^a-z]|$)", name.lower()) and not run.trained()
    ]
    return named[0] if len(named) == 1 else None


def judge(results: ExternalResults, base: str | None) -> list[Judged]:
    """Every score of every run against the base's, corrected together."""
    rows: list[Judged] = []
    for name, run in results.runs.items():
        for key, found in run.scores.items() if base and name != base else ():
            before = results.runs[base].scores.get(key)
            if before is not None:
                row = Judged(name, key, before, found, results.higher_is_better(key))
                rows.append(_paired(row, run, results.runs[base]) or _unpaired(row))
    p = np.array([np.nan if row.p is None or row.higher is None else row.p for row in rows])
    fixed = paired_statistics.corrected(p, method="holm") if len(rows) else []
    return [row if np.isnan(one) else _with_verdict(row, float(one)) for row, one in zip(rows, fixed)]


def _with_verdict(row: Judged, p: float) -> Judged:
    improvement = row.difference if row.higher else -row.difference
    return replace(row, p_corrected=p, verdict=paired_statistics.verdict(improvement, p, ALPHA))


def _paired(row: Judged, run: ExternalRun, base: ExternalRun) -> Judged | None:
    """Item by item, where both have the same items and their means are the scores that the result files tell."""
    ours, theirs = run.items.get(row.key, {}), base.items.get(row.key, {})
    if len(ours) < 2 or ours.keys() != theirs.keys():
        return None
    a, b = (np.array([items[item] for item in ours])[None] for items in (theirs, ours))
    told = (row.base.value, row.score.value)
    if not np.allclose((a.mean(), b.mean()), told, rtol=1e-3, atol=1e-4):
        return None  # the score is no mean over items, or of other items
    found = paired_statistics.compare_paired(a, b, confidence=1 - ALPHA, draws=DRAWS, seed=0)
    return replace(row, low=float(found.low[0]), high=float(found.high[0]), p=float(found.p[0]), method=found.method[0])


def _unpaired(row: Judged) -> Judged:
    """z of the difference of two means with the given standard errors (wider than a paired test would be)."""
    from scipy.stats import norm

    errors = [_stderr(one, row.key) for one in (row.base, row.score)]
    spread = 0.0 if None in errors else float(np.hypot(*errors))
    if not spread > 0:
        return row
    half = float(norm.ppf(1 - ALPHA / 2)) * spread
    p = 2 * float(norm.sf(abs(row.difference) / spread))
    return replace(row, low=row.difference - half, high=row.difference + half, p=p, method=UNPAIRED)


def _stderr(found: ExternalScore, key: ScoreKey) -> float | None:
    """The given standard error; for a share over a known number of items, that of a binomial share."""
    if found.stderr is not None:
        return found.stderr
    if found.items and re.match(r"acc(uracy)?\b|exact_match\b", key[1]) and 0 <= found.value <= 1:
        return float(np.sqrt(found.value * (1 - found.value) / found.items))
    return None


def answer(judged: list[Judged], base: str | None) -> str:
    """What the scores say, in a sentence or two."""
    told = [row for row in judged if row.verdict]
    if base is None:
        return "Without an untrained base among the runs, whether training helped cannot be told; below is what the files hold."
    if not told:
        return "The files hold no score with an error for both a run and the base, so no difference can be judged."
    better, worse = (sum(row.verdict == word for row in told) for word in ("better", "worse"))
    paired = sum(row.method != UNPAIRED for row in told)
    how = (
        "paired tests"
        if paired == len(told)
        else f"{paired} paired tests, the others unpaired"
        if paired
        else "unpaired tests"
    )
    return (
        f"Of {plural(len(told), 'score')} of tuned models, {better} {'is' if better == 1 else 'are'} better than those of "
        f"“{visible(base, 80)}”, {worse} worse, and for {len(told) - better - worse} the data do not decide "
        f"({how}, corrected together by Holm’s method at {ALPHA:.0%})."
    )


def missing_parts(results: ExternalResults, base: str | None, judged: list[Judged]) -> list[str]:
    """What is not there, and what cannot be said without it."""
    runs = list(results.runs.values())
    scored, with_path = any(run.scores for run in runs), [run for run in runs if run.path is not None]
    without = [run.name for run in runs if run.path is None and run.name != base]
    seeds = {run.settings.get("seed") for run in runs} - {None}
    parts = {
        "No run is known as the untrained base (name one with --base): whether training helped cannot be told.": base
        is None,
        "No scores: nothing can be said about what the models learned or forgot.": not scored,
        "Some scores come without standard error or number of items: their differences stay without a verdict.": any(
            row.p is None for row in judged
        ),
        "For some scores neither file nor name says which way is better: they stay without a verdict.": any(
            row.higher is None for row in judged
        ),
        "No answers item by item (lm-eval’s --log_samples) for some or all scores: those comparisons are unpaired, so their "
        "intervals are wider than they need be.": scored
        and (not judged or any(row.method == UNPAIRED for row in judged)),
        f"No loss path (trainer_state.json) for {plural(len(without), 'run')}: no cause can be named there.": bool(
            without
        ),
        "No held-out loss in some trainer_state.json files: overfitting cannot be seen without it.": any(
            not len(run.path.heldout) for run in with_path
        ),
        "Tokens were not counted (include_num_input_tokens_seen): losses are drawn over steps, not compared at equal "
        "tokens.": any(run.path_unit == "steps" for run in with_path),
        "One seed or none named: the luck of the seed is in every difference.": len(seeds) < 2,
        "No data fingerprints or code versions: whether the runs saw the same data is not known.": True,
    }
    return [part for part, holds in parts.items() if holds]
