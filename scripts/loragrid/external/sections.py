"""The page of external runs as plain values: comparisons, causes, and what the files lack."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loragrid.comparing.diagnosing.causes import with_symptoms
from loragrid.comparing.diagnosing.loss_causes import diverged, overfitted, under_trained
from loragrid.comparing.diagnosing.run_evidence import RunEvidence
from loragrid.external.base_comparison import ALPHA, UNPAIRED, BaseComparison, compare_with_base
from loragrid.external.runs import ExternalResults, ExternalRun, ScoreKey, is_number, score_name
from loragrid.formatting import (
    between,
    change,
    p_value,
    plain_name,
    plural,
    score,
    setting,
    visible,
)
from loragrid.reporting.sentences.causes import cause_texts
from loragrid.statistics.paired_statistics import DIFFER

FLAGS = ("--base", "--log_samples")  # named in sentences, where they must not break
DIRECTIONS = {True: "higher", False: "lower", None: "unknown"}


def external_sections(
    results: ExternalResults,
    base: str | None,
    title: str,
    source: Path,
) -> dict[str, Any]:
    """All sections of the page."""
    rows = compare_with_base(results, base)
    keys = list(dict.fromkeys(key for run in results.runs.values() for key in run.scores))
    settings = list(dict.fromkeys(name for run in results.runs.values() for name in run.settings))
    small = {name for name in settings if _has_powers(results, name)}
    return {
        "title": visible(title, 300),
        "source": visible(source.name, 200),
        "counts": f"{plural(len(results.runs), 'run')} with {plural(len(keys), 'different score')}",
        "answer": answer(rows, base),
        "missing": missing_parts(results, base, rows),
        "settings": [{"name": plain_name(name), "numeric": _is_numeric(results, name)} for name in settings],
        "scores": [score_name(key) for key in keys],
        "runs": [
            {
                "name": visible(run.name, 120),
                "base": run.name == base,
                "settings": [_setting_cell(run.settings.get(name), scientific=name in small) for name in settings],
                "scores": [_score_cell(run, key, results.unit(key)) for key in keys],
                "files": len(run.files),
            }
            for run in results.runs.values()
        ],
        "comparisons": [_comparison_row(row, results.unit(row.key)) for row in rows],
        "causes": _causes(results),
        "unused": results.unused,
        "columns_unused": list(results.columns.items()),
        "names": [*results.runs, *FLAGS],
    }


def _is_numeric(results: ExternalResults, setting_name: str) -> bool:
    """Whether a setting's column is one of numbers, which are set flush right and sort by value."""
    return any(is_number(run.settings.get(setting_name)) for run in results.runs.values())


def _has_powers(results: ExternalResults, setting_name: str) -> bool:
    """Whether a setting has a value that is written as 2e−4: then all of its column are."""
    values = [run.settings.get(setting_name) for run in results.runs.values()]
    return any(isinstance(value, float) and value and "e" in setting(value) for value in values)


def _score_cell(run: ExternalRun, key: ScoreKey, unit: str) -> dict[str, Any]:
    if key not in run.scores:
        return {"text": "–", "sort": None}
    found = run.scores[key]
    text = score(found.value, unit)
    if found.stderr:
        text += f" ± {change(found.stderr, unit).lstrip('+')}"
    return {"text": text, "sort": found.value}


def _setting_cell(value: Any, *, scientific: bool) -> dict[str, Any]:
    if value is None:
        return {"text": "–", "sort": None}
    if isinstance(value, float):
        # pandas reads a column of whole numbers with gaps as floats.
        text = str(int(value)) if value.is_integer() else setting(value, scientific=scientific)
    else:
        text = visible(value, 80)
    return {"text": text, "sort": value if is_number(value) else None}


def _comparison_row(row: BaseComparison, unit: str) -> dict[str, Any]:
    return {
        "run": visible(row.run, 120),
        "score": score_name(row.key),
        "better_is": DIRECTIONS[row.higher_is_better],
        "before": score(row.base.value, unit),
        "after": score(row.score.value, unit),
        "difference": change(row.difference, unit, words=True),
        "interval": _interval(row, unit),
        "p": p_value(row.p_corrected),
        "method": row.method or "–",
        "verdict": row.verdict or "not compared",
        "sort": {
            "before": row.base.value,
            "after": row.score.value,
            "difference": row.difference,
            "p": row.p_corrected,
        },
    }


def _interval(row: BaseComparison, unit: str) -> str:
    if row.low is None:
        return "–"
    return between(row.low, row.high, unit)


def _causes(results: ExternalResults) -> list[dict[str, Any]]:
    """Per run with a fault: its label, and the causes that its loss path alone shows."""
    rows = []
    for run in results.runs.values():
        if run.path is None:
            continue
        epochs = run.settings.get("epochs")
        evidence = RunEvidence(None, run.path, epochs if is_number(epochs) else None, {}, {}, None)
        causes = with_symptoms([*diverged(evidence), *under_trained(evidence), *overfitted(evidence)])
        if causes:
            texts = cause_texts(map(asdict, causes), {})
            rows.append({"label": visible(run.name, 120), "causes": texts})
    return rows


def answer(rows: Sequence[BaseComparison], base: str | None) -> str:
    """What the scores say, in a sentence or two."""
    if base is None:
        return (
            "No run is known to be the base, so the page cannot say whether training "
            "helped. It shows what the files hold."
        )
    judged = [row for row in rows if row.verdict]
    if not judged:
        return (
            "The files hold no score with a standard error for both a run and the base, so no difference can be judged."
        )
    apart = [row for row in judged if row.verdict == DIFFER]
    gained = sum(row.improves for row in apart)
    verb = "differs" if len(apart) == 1 else "differ"
    return (
        f"Of {plural(len(judged), 'score')} of tuned models, {len(apart)} {verb} from those of “{visible(base, 80)}”, "
        f"{gained} of them as wanted; for {len(judged) - len(apart)} the data do not decide ({_tests_made(judged)}, "
        f"corrected together by Holm’s method at {ALPHA:.0%}). This holds for these models on items like these: "
        "another training seed may give another one."
    )


def _tests_made(judged: Sequence[BaseComparison]) -> str:
    paired = sum(row.method != UNPAIRED for row in judged)
    if paired == len(judged):
        return "paired tests"
    if not paired:
        return "unpaired tests"
    return f"{paired} paired tests, the others unpaired"


NO_BASE = "No run is known as the base (name one with --base), so whether training helped is unknown."
NO_SCORES = "There are no scores, so what the models learned or forgot is unknown."
NO_STDERR = "Some scores have neither a standard error nor a number of items: their differences get no verdict."
NO_DIRECTION = "For some scores neither the file nor the name says whether higher is better: they get no verdict."
NO_ITEMS = (
    "Some or all scores come without answers item by item (lm-eval’s --log_samples): their "
    "comparisons are unpaired, with wider intervals than paired ones."
)
NO_HELDOUT_LOSS = "Some trainer_state.json files hold no held-out loss, without which overfitting cannot be seen."
NO_TOKENS = (
    "Tokens were not counted (include_num_input_tokens_seen): losses are drawn over steps and not "
    "compared at equal tokens."
)
ONE_SEED = "At most one seed is named, so nothing can be said of settings, only of these models."
NO_FINGERPRINTS = "There are no data fingerprints or code versions, so the runs may have seen different data."


def missing_parts(results: ExternalResults, base: str | None, rows: Sequence[BaseComparison]) -> list[str]:
    """What the files lack, each with what cannot be said without it."""
    runs = list(results.runs.values())
    seeds = {run.settings.get("seed") for run in runs} - {None}
    parts = [NO_BASE] if base is None else []
    parts += _missing_scores(runs, rows)
    parts += _missing_losses(runs, base)
    if len(seeds) < 2:
        parts.append(ONE_SEED)
    return [*parts, NO_FINGERPRINTS]


def _missing_scores(runs: Sequence[ExternalRun], rows: Sequence[BaseComparison]) -> list[str]:
    if not any(run.scores for run in runs):
        return [NO_SCORES]
    parts = []
    if any(row.p is None for row in rows):
        parts.append(NO_STDERR)
    if any(row.higher_is_better is None for row in rows):
        parts.append(NO_DIRECTION)
    if not rows or any(row.method == UNPAIRED for row in rows):
        parts.append(NO_ITEMS)
    return parts


def _missing_losses(runs: Sequence[ExternalRun], base: str | None) -> list[str]:
    parts = []
    without = sum(run.path is None and run.name != base for run in runs)
    if without:
        who = plural(without, "run")
        parts.append(f"{who} without losses (trainer_state.json): no cause can be found there.")
    with_path = [run for run in runs if run.path is not None]
    if any(not len(run.path.heldout) for run in with_path):
        parts.append(NO_HELDOUT_LOSS)
    if any(run.path_unit == "steps" for run in with_path):
        parts.append(NO_TOKENS)
    return parts
