"""What can be said of runs from elsewhere: their scores against the base, their loss paths, and what is missing for more."""

from pathlib import Path
from typing import Any

from loragrid.comparing.causes import as_dicts, diverged, overfitted, under_trained
from loragrid.comparing.run_evidence import RunEvidence
from loragrid.external.base_comparison import ALPHA, Judged, answer, judge, missing_parts
from loragrid.external.runs import ExternalResults, ExternalRun, ScoreKey, is_number
from loragrid.formatting import between, change, p_value, plain_name, plural, score, setting, visible
from loragrid.reporting.figures import charts
from loragrid.reporting.figures.charts import Point
from loragrid.reporting.figures.loss_chart import loss_curves, path_curve
from loragrid.reporting.figures.study_figures import MOST_CURVES, Pictures
from loragrid.reporting.figures.svg import SERIES, drawing

MOST_RUNS_DRAWN = 16


def unit_of(results: ExternalResults, key: ScoreKey) -> str:
    """share where every run's value lies between 0 and 1 and more is better."""
    values = [run.scores[key].value for run in results.runs.values() if key in run.scores]
    return "share" if results.higher_is_better(key) and all(0 <= value <= 1 for value in values) else "plain"


def external_sections(results: ExternalResults, base: str | None, title: str, source: Path) -> dict[str, Any]:
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
        "columns": list(results.columns.items()),
        "alpha": ALPHA,
    }


def name_of(key: ScoreKey) -> str:
    """A score's name."""
    return plain_name(f"{key[0]} {key[1]}".strip())


def _run_row(
    run: ExternalRun, settings: list[str], keys: list, results: ExternalResults, base: str | None
) -> dict[str, Any]:
    cells = []
    for key in keys:
        found = run.scores.get(key)
        error = f" ± {change(found.stderr, unit_of(results, key)).lstrip('+')}" if found and found.stderr else ""
        text = score(found.value if found else None, unit_of(results, key)) + error
        cells.append({"text": text, "sort": found.value if found else None})
    return {
        "name": visible(run.name, 120),
        "base": run.name == base,
        "settings": [_setting(run.settings.get(name)) for name in settings],
        "scores": cells,
        "files": len(run.files),
    }


def _setting(value: Any) -> dict[str, Any]:
    number_ = value if is_number(value) else None
    if isinstance(value, float) and not value.is_integer():
        return {"text": setting(value), "sort": number_}
    return {
        "text": "–" if value is None else visible(int(value) if isinstance(value, float) else value, 80),
        "sort": number_,
    }


def _comparison_row(row: Judged, results: ExternalResults) -> dict[str, Any]:
    unit = unit_of(results, row.key)
    return {
        "run": visible(row.run, 120),
        "score": name_of(row.key),
        "better_is": {True: "higher", False: "lower", None: "not known"}[row.higher],
        "before": score(row.base.value, unit),
        "after": score(row.score.value, unit),
        "difference": change(row.difference, unit, words=True),
        "interval": "–" if row.low is None else between(row.low, row.high, unit),
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


def _causes(results: ExternalResults) -> list[dict[str, Any]]:
    """Causes that a loss path alone can show."""
    rows = []
    for run in results.runs.values():
        if run.path is None:
            continue
        epochs = run.settings.get("epochs")
        evidence = RunEvidence(None, run.path, epochs if is_number(epochs) else None, {}, {}, None)
        causes = [cause for check in (diverged, under_trained, overfitted) for cause in check(evidence)]
        if causes:
            rows.append({"label": visible(run.name, 120), "causes": as_dicts(causes)})
    return rows


def draw_external_figures(results: ExternalResults, base: str | None, folder: Path) -> Pictures:
    """Loss paths, and scores with intervals, as far as they are there."""
    pictures = Pictures(folder)
    judged = [row for row in judge(results, base) if row.low is not None]
    with drawing():
        paths = [run for run in results.runs.values() if run.path is not None]
        unit = "tokens" if all(run.path_unit == "tokens" for run in paths) else "steps"
        drawn = [run for run in paths if run.path_unit == unit][:MOST_CURVES]
        if drawn:
            curves = [
                path_curve(visible(run.name, 24), SERIES[number_ % len(SERIES)], run.path)
                for number_, run in enumerate(drawn)
            ]
            label = "tokens seen in training" if unit == "tokens" else "optimizer steps"
            pictures.add("losses", loss_curves(curves, label), f"Loss against {unit} of {plural(len(drawn), 'run')}")
        for number_, key in enumerate(dict.fromkeys(row.key for row in judged)):
            points = [
                (visible(row.run, 24), Point("", row.difference, row.low, row.high, row.verdict != "can't tell"))
                for row in [row for row in judged if row.key == key][:MOST_RUNS_DRAWN]
            ]
            share = unit_of(results, key) == "share"
            figure = charts.one_difference(points, name_of(key), share=share)
            pictures.add(f"score_{number_}", figure, f"{name_of(key)}: difference from the base")
    return pictures
