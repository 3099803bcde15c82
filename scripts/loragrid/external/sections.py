"""The page of external runs as plain values: comparisons, causes, and what the files lack."""

import math
from pathlib import Path
from typing import Any

from loragrid.external.base_comparison import BaseComparison
from loragrid.external.log_findings import run_causes
from loragrid.external.runs import ExternalResults, ExternalRun, ScoreKey, is_number, score_name, shortened
from loragrid.external.sentences import answer, missing_parts, not_compared
from loragrid.formatting import (
    MINUS,
    between,
    change,
    change_beside,
    decimals,
    p_value,
    plain_name,
    plural,
    score,
    setting,
    visible,
)
from loragrid.statistics.paired_statistics import DIFFER

FLAGS = ("--base", "--log_samples")  # named in sentences, where they must not break
LONGEST_NAME = 80
MOST_COLUMNS = 12  # of settings and scores in the table of runs; with more a score has a row instead
MOST_RUNS = 6  # side by side where scores have rows: as many as fit on paper
DIRECTIONS = {True: "higher", False: "lower", None: "unknown"}


def external_sections(
    results: ExternalResults,
    base: str | None,
    rows: list[BaseComparison],
    title: str,
    source: Path,
) -> dict[str, Any]:
    """All sections of the page; `rows` are the comparisons with the base."""
    keys = list(dict.fromkeys(key for run in results.runs.values() for key in run.scores))
    settings = list(dict.fromkeys(name for run in results.runs.values() for name in run.settings))
    small = {name for name in settings if _has_powers(results, name)}
    names, scores = [plain_name(name) for name in settings], [score_name(key) for key in keys]
    said = answer(results, rows, base)
    runs = [
        {
            "name": shortened(run.name, LONGEST_NAME),
            "base": run.name == base,
            "settings": [_setting_cell(run.settings.get(name), scientific=name in small) for name in settings],
            "scores": [_score_cell(run, key, results.unit(key)) for key in keys],
            "files": len(run.files),
        }
        for run in results.runs.values()
    ]
    return {
        "title": visible(title, 300),
        "source": visible(source.name, 200),
        "counts": f"{plural(len(results.runs), 'run')}, {plural(len(keys), 'score')}",
        "answer": said,
        # Without a verdict the answer itself says why.
        "not_compared": [part for part in not_compared(results, base, rows) if part not in said],
        "missing": missing_parts(results, base, rows),
        "settings": [
            {"name": text, "numeric": _is_numeric(results, name)} for text, name in zip(names, settings, strict=True)
        ],
        "scores": scores,
        "runs": runs,
        "parts": _parts(runs, names, scores) if len(names) + len(scores) > MOST_COLUMNS else [],
        "comparisons": [_comparison_row(row, results.unit(row.key)) for row in rows if not row.detail_of],
        "details": [_comparison_row(row, results.unit(row.key)) for row in rows if row.detail_of],
        "causes": run_causes(results),
        "unused": results.unused,
        "columns_unused": list(results.columns.items()),
        "names": [*results.runs, *FLAGS],
    }


def _parts(runs: list[dict[str, Any]], settings: list[str], scores: list[str]) -> list[dict[str, Any]]:
    """Tables of at most `MOST_RUNS` runs side by side, with a row (name, cells) for each setting and score."""
    parts = []
    for place in range(0, len(runs), MOST_RUNS):
        shown = runs[place : place + MOST_RUNS]
        files = {"files": [{"text": str(run["files"]), "sort": run["files"]} for run in shown]}
        of_settings = _rows(settings, [run["settings"] for run in shown]) | files
        of_scores = _rows(scores, [run["scores"] for run in shown])
        parts.append({"runs": shown, "settings": of_settings, "scores": of_scores})
    return parts


def _rows(names: list[str], cells: list[list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Name → its cells, one per run."""
    return {name: [own[number] for own in cells] for number, name in enumerate(names)}


def _is_numeric(results: ExternalResults, setting_name: str) -> bool:
    """Whether a setting's column is one of numbers, which are set flush right and sort by value."""
    return any(is_number(run.settings.get(setting_name)) for run in results.runs.values())


def _has_powers(results: ExternalResults, setting_name: str) -> bool:
    """Whether a setting has a value that is written as 2e−4: then all of its column are."""
    values = [run.settings.get(setting_name) for run in results.runs.values()]
    return any(isinstance(value, float) and is_number(value) and value and "e" in setting(value) for value in values)


def _score_cell(run: ExternalRun, key: ScoreKey, unit: str) -> dict[str, Any]:
    if key not in run.scores:
        return {"text": "–", "sort": None}
    found = run.scores[key]
    # The spread of huge items is infinite.
    has_error = is_number(found.stderr) and found.stderr
    text = _with_error(found.value, found.stderr, unit) if has_error else score(found.value, unit, 1)
    return {"text": text, "sort": found.value}


def _with_error(value: float, stderr: float, unit: str) -> str:
    """A score and its standard error, which has two digits; a score that is no share has as many decimals."""
    if unit == "share":
        return f"{score(value, unit, 1)} ± {change(stderr, unit, places=1).lstrip('+')}"
    places = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{places}f} ± {stderr:.{places}f}".replace("-", MINUS)


def _setting_cell(value: Any, *, scientific: bool) -> dict[str, Any]:
    if value is None:
        return {"text": "–", "sort": None}
    if isinstance(value, float) and is_number(value):
        # pandas reads a column of whole numbers with gaps as floats.
        text = str(int(value)) if value.is_integer() else setting(value, scientific=scientific)
    else:
        text = visible(value, 80)
    return {"text": text, "sort": value if is_number(value) else None}


def _comparison_row(row: BaseComparison, unit: str) -> dict[str, Any]:
    # As many decimals as the interval supports, and one more than none: means of seeds differ by less than a point.
    low, high = (row.test.low, row.test.high) if row.test is not None else (None, None)
    places = max(1, decimals(low, high))
    return {
        "run": shortened(row.run, LONGEST_NAME),
        "against": shortened(row.against, LONGEST_NAME),
        "score": score_name(row.key),
        "better_is": DIRECTIONS[row.higher_is_better],
        "before": score(row.base.value, unit, places),
        "after": score(row.score.value, unit, places),
        "difference": change_beside(row.difference, low, high, unit, least=1),
        "interval": _interval(row, unit),
        "p": p_value(row.p_corrected),
        "method": row.test.method if row.test is not None else "–",
        "verdict": row.verdict or "not compared",
        "note": _note(row),
        "detail_of": shortened(row.detail_of, LONGEST_NAME),
        "sort": {
            "before": row.base.value,
            "after": row.score.value,
            "difference": row.difference,
            "p": row.p_corrected,
        },
    }


def _note(row: BaseComparison) -> str:
    """What a reader must know beside the verdict."""
    if row.refused:
        return "; ".join(row.refused)
    parts = []
    if row.verdict == DIFFER:
        parts.append("as wanted" if row.improves else "not as wanted")
    if row.largest_of:
        parts.append(f"the largest of {row.largest_of}")
    if row.higher_is_better is None:
        parts.append("direction not known")
    elif row.test is None and row.detail_of:
        parts.append("pooled with its other seeds")
    elif row.test is None:
        parts.append("no standard error")
    return ", ".join(parts)


def _interval(row: BaseComparison, unit: str) -> str:
    if row.test is None:
        return "–"
    return between(row.test.low, row.test.high, unit, least=1)
