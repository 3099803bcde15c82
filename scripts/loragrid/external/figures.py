"""The figures of a page of external runs: loss paths, and scores against the base's."""

from pathlib import Path

from loragrid.external.base_comparison import BaseComparison, compare_with_base
from loragrid.external.runs import ExternalResults, score_name
from loragrid.formatting import plural, visible
from loragrid.reporting.figures import charts
from loragrid.reporting.figures.charts import HOLLOW, VERDICT_MARKS, Estimate
from loragrid.reporting.figures.loss_chart import loss_curves, path_curve
from loragrid.reporting.figures.study_figures import MOST_CURVES
from loragrid.reporting.figures.style import SERIES, matplotlib_style
from loragrid.reporting.figures.svg import PageFigures

MOST_RUNS_DRAWN = 16
LONGEST_NAME = 24  # characters of a run's name beside a line or a row


def draw_external_figures(results: ExternalResults, base: str | None, folder: Path) -> PageFigures:
    """All figures that the files allow, saved in `folder`."""
    figures = PageFigures(folder)
    with matplotlib_style():
        _draw_losses(results, figures)
        _draw_differences(results, compare_with_base(results, base), figures)
    return figures


def _draw_losses(results: ExternalResults, figures: PageFigures) -> None:
    runs = [run for run in results.runs.values() if run.path is not None]
    # One axis for all: runs without token counts would need another one.
    unit, x_label = "steps", "optimizer steps"
    if all(run.path_unit == "tokens" for run in runs):
        unit, x_label = "tokens", "tokens seen in training"
    runs = [run for run in runs if run.path_unit == unit][:MOST_CURVES]
    if not runs:
        return
    curves = [
        path_curve(visible(run.name, LONGEST_NAME), SERIES[index % len(SERIES)], run.path)
        for index, run in enumerate(runs)
    ]
    description = f"Loss against {unit} of {plural(len(runs), 'run')}"
    figures.add("losses", loss_curves(curves, x_label), description)


def _draw_differences(results: ExternalResults, rows: list[BaseComparison], figures: PageFigures) -> None:
    """A figure per score: its difference from the base's in each run that has an interval."""
    rows = [row for row in rows if row.low is not None]
    for number, key in enumerate(dict.fromkeys(row.key for row in rows)):
        estimates = [
            (
                visible(row.run, LONGEST_NAME),
                Estimate(row.difference, row.low, row.high, VERDICT_MARKS.get(row.verdict, HOLLOW)),
            )
            for row in rows
            if row.key == key
        ]
        share = results.unit(key) == "share"
        figure = charts.one_difference(estimates[:MOST_RUNS_DRAWN], score_name(key), share=share)
        figures.add(f"score_{number}", figure, f"{score_name(key)}: difference from the base")
