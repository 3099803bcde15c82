"""What can be said of runs from elsewhere: their scores against the base, their loss paths, and what is missing for more."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from study import charts, stats
from study.charts import Curve, Point
from study.diagnosis import as_dicts, diverged, overfitted, under_trained
from study.errors import UserError
from study.figures import drawing
from study.foreign import ForeignResults, ForeignRun, ForeignScore, lower_is_better
from study.pictures import MOST_CURVES, Pictures
from study.run_evidence import Evidence
from study.wording import between, change, number, p_value, plain_name, plural, score, visible

# ASSUME: runs from elsewhere are judged at the usual 5% with Holm's correction, as no study file says otherwise.
ALPHA = 0.05
MOST_RUNS_DRAWN = 16


@dataclass(frozen=True)
class Judged:
    """One run's score beside the base's; numbers None where errors were not given."""

    run: str
    task: str
    metric: str
    base: ForeignScore
    score: ForeignScore
    low: float | None
    high: float | None
    p: float | None
    p_corrected: float | None
    verdict: str


def find_base(results: ForeignResults, wanted: str | None) -> str | None:
    """The untrained base: the run named, or the only one whose name says so; None when there is none."""
    if wanted is not None:
        if wanted not in results.runs:
            raise UserError(f"--base {wanted}: no run of that name; there are {', '.join(sorted(results.runs))[:300]}")
        return wanted
    named = [
        name
        for name in results.runs
        if re.search(r"(^|[^a-z])(base|baseline|untrained|original)([^a-z]|$)", name.lower())
    ]
    return named[0] if len(named) == 1 else None


def judge(results: ForeignResults, base: str | None) -> list[Judged]:
    """Every score of every run against the base's, corrected together. Items are not known, so the test is unpaired:
    z of the difference of two means with the given standard errors (wider than a paired test would be)."""
    from scipy.stats import norm

    rows: list[dict[str, Any]] = []
    for name, run in results.runs.items():
        for key, found in run.scores.items() if base and name != base else ():
            before = results.runs[base].scores.get(key)
            if before is None:
                continue
            errors = [_stderr(one, key) for one in (before, found)]
            row = {"run": name, "key": key, "base": before, "score": found, "low": None, "high": None, "p": None}
            if None not in errors and (spread := float(np.hypot(*errors))) > 0:
                difference = found.value - before.value
                half = float(norm.ppf(1 - ALPHA / 2)) * spread
                p = 2 * float(norm.sf(abs(difference) / spread))
                row |= {"low": difference - half, "high": difference + half, "p": p}
            rows.append(row)
    p = np.array([np.nan if row["p"] is None else row["p"] for row in rows])
    judged = []
    for row, fixed in zip(rows, stats.corrected(p, method="holm") if len(rows) else []):
        sign = -1 if lower_is_better(" ".join(row["key"])) else 1
        verdict = (
            stats.verdict(sign * (row["score"].value - row["base"].value), fixed, ALPHA) if row["p"] is not None else ""
        )
        task, metric = row.pop("key")
        judged.append(
            Judged(
                **row, task=task, metric=metric, p_corrected=None if np.isnan(fixed) else float(fixed), verdict=verdict
            )
        )
    return judged


def _stderr(found: ForeignScore, key: tuple[str, str]) -> float | None:
    """The given standard error; for a share over a known number of items, that of a binomial share."""
    if found.stderr is not None:
        return found.stderr
    if found.items and "acc" in " ".join(key) and 0 <= found.value <= 1:
        return float(np.sqrt(found.value * (1 - found.value) / found.items))
    return None


def unit_of(results: ForeignResults, key: tuple[str, str]) -> str:
    """share where every run's value lies between 0 and 1 and more is better."""
    values = [run.scores[key].value for run in results.runs.values() if key in run.scores]
    return "share" if not lower_is_better(" ".join(key)) and all(0 <= value <= 1 for value in values) else "plain"


def missing_parts(results: ForeignResults, base: str | None, judged: list[Judged]) -> list[str]:
    """What is not there, and what cannot be said without it."""
    runs = list(results.runs.values())
    parts = []
    if base is None:
        parts.append(
            "No run is known as the untrained base (name one with --base): whether training helped cannot be told."
        )
    if not any(run.scores for run in runs):
        parts.append("No scores: nothing can be said about what the models learned or forgot.")
    elif any(row.p is None for row in judged):
        parts.append(
            "Some scores come without standard error or number of items: their differences stay without a verdict."
        )
    if any(run.scores for run in runs):
        parts.append(
            "No answers item by item: comparisons are unpaired, so their intervals are wider than they need be."
        )
    without = [run.name for run in runs if run.path is None and run.name != base]
    if without:
        parts.append(
            f"No loss path (trainer_state.json) for {plural(len(without), 'run')}: no cause can be named there."
        )
    if any(run.path is not None and not len(run.path.heldout) for run in runs):
        parts.append("No held-out loss in some trainer_state.json files: overfitting cannot be seen without it.")
    if any(run.path is not None and run.path_unit == "steps" for run in runs):
        parts.append(
            "Tokens were not counted (include_num_input_tokens_seen): losses are drawn over steps, not compared at equal tokens."
        )
    seeds = {run.settings.get("seed") for run in runs} - {None}
    if len(seeds) < 2:
        parts.append("One seed or none named: the luck of the seed is in every difference.")
    parts.append("No data fingerprints or code versions: whether the runs saw the same data is not known.")
    return parts


def foreign_context(results: ForeignResults, base: str | None, title: str, source: Path) -> dict[str, Any]:
    """All sections of the page as plain values."""
    judged = judge(results, base)
    keys = list(dict.fromkeys(key for run in results.runs.values() for key in run.scores))
    settings = list(dict.fromkeys(name for run in results.runs.values() for name in run.settings))
    return {
        "title": visible(title, 300),
        "source": visible(source.name, 200),
        "counts": f"{plural(len(results.runs), 'run')} read, {plural(len(keys), 'score')} among them",
        "base": base,
        "answer": answer(judged, base),
        "missing": missing_parts(results, base, judged),
        "settings": [plain_name(name) for name in settings],
        "scores": [name_of(key) for key in keys],
        "runs": [_run_row(run, settings, keys, results, base) for run in results.runs.values()],
        "comparisons": [_comparison_row(row, results) for row in judged],
        "causes": _causes(results),
        "unused": results.unused,
        "alpha": ALPHA,
    }


def answer(judged: list[Judged], base: str | None) -> str:
    """What the scores say, in a sentence or two."""
    told = [row for row in judged if row.verdict]
    if base is None:
        return "Without an untrained base among the runs, whether training helped cannot be told; below is what the files hold."
    if not told:
        return "The files hold no score with an error for both a run and the base, so no difference can be judged."
    better, worse = (sum(row.verdict == word for row in told) for word in ("better", "worse"))
    return (
        f"Of {plural(len(told), 'score')} of tuned models, {better} {'is' if better == 1 else 'are'} better than those of "
        f"“{visible(base, 80)}”, {worse} worse, and for {len(told) - better - worse} the data do not decide "
        f"(unpaired tests, corrected together by Holm’s method at {ALPHA:.0%})."
    )


def name_of(key: tuple[str, str]) -> str:
    """A score's name."""
    return plain_name(f"{key[0]} {key[1]}".strip())


def _run_row(
    run: ForeignRun, settings: list[str], keys: list, results: ForeignResults, base: str | None
) -> dict[str, Any]:
    cells = []
    for key in keys:
        found = run.scores.get(key)
        error = f" ± {change(found.stderr, unit_of(results, key)).lstrip('+')}" if found and found.stderr else ""
        cells.append(
            {
                "text": score(found.value if found else None, unit_of(results, key)) + error,
                "sort": found.value if found else "",
            }
        )
    return {
        "name": visible(run.name, 120),
        "base": run.name == base,
        "settings": [_setting(run.settings.get(name)) for name in settings],
        "scores": cells,
        "files": len(run.files),
    }


def _setting(value: Any) -> str:
    if isinstance(value, float) and not float(value).is_integer():
        return number(value)
    return "–" if value is None else visible(int(value) if isinstance(value, float) else value, 80)


def _comparison_row(row: Judged, results: ForeignResults) -> dict[str, Any]:
    unit = unit_of(results, (row.task, row.metric))
    return {
        "run": visible(row.run, 120),
        "score": name_of((row.task, row.metric)),
        "difference": change(row.score.value - row.base.value, unit, words=True),
        "interval": "–" if row.low is None else between(row.low, row.high, unit),
        "p": p_value(row.p_corrected),
        "verdict": row.verdict or "not compared",
    }


def _causes(results: ForeignResults) -> list[dict[str, Any]]:
    """Causes that a loss path alone can show."""
    rows = []
    for run in results.runs.values():
        if run.path is None:
            continue
        evidence = Evidence(None, run.path, _number(run.settings.get("epochs")), {}, {}, None)
        causes = [cause for check in (diverged, under_trained, overfitted) for cause in check(evidence)]
        if causes:
            rows.append({"label": visible(run.name, 120), "causes": as_dicts(causes)})
    return rows


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def draw_foreign(results: ForeignResults, base: str | None, folder: Path) -> Pictures:
    """Loss paths, and scores with intervals, as far as they are there."""
    pictures = Pictures(folder)
    judged = [row for row in judge(results, base) if row.low is not None]
    with drawing():
        paths = [run for run in results.runs.values() if run.path is not None]
        unit = "tokens" if all(run.path_unit == "tokens" for run in paths) else "steps"
        drawn = [run for run in paths if run.path_unit == unit][:MOST_CURVES]
        if drawn:
            curves = [_curve(run, number_) for number_, run in enumerate(drawn)]
            label = "tokens seen in training" if unit == "tokens" else "optimizer steps"
            pictures.add(
                "losses", charts.loss_curves(curves, label), f"Loss against {unit} of {plural(len(drawn), 'run')}"
            )
        for number_, key in enumerate(dict.fromkeys((row.task, row.metric) for row in judged)):
            rows = [row for row in judged if (row.task, row.metric) == key][:MOST_RUNS_DRAWN]
            points = [
                (
                    visible(row.run, 24),
                    Point("", row.score.value - row.base.value, row.low, row.high, row.verdict != "can't tell"),
                )
                for row in rows
            ]
            share = unit_of(results, key) == "share"
            pictures.add(
                f"score_{number_}",
                charts.one_difference(points, name_of(key), share=share),
                f"{name_of(key)}: difference from the base",
            )
    return pictures


def _curve(run: ForeignRun, number_: int) -> Curve:
    path = run.path
    train, heldout = (
        (a.tolist(), b.tolist()) for a, b in ((path.train_tokens, path.train), (path.heldout_tokens, path.heldout))
    )
    return Curve(visible(run.name, 24), charts.SERIES[number_ % len(charts.SERIES)], train, heldout)
