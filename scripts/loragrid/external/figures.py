"""The figures of a page of external runs: loss paths, and one forest plot of all differences."""

from collections import Counter
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from loragrid.external.base_comparison import BaseComparison
from loragrid.external.runs import ExternalResults, score_name, shortened
from loragrid.formatting import plural
from loragrid.reporting.figures.charts import HOLLOW, VERDICT_MARKS, filled, signed_points
from loragrid.reporting.figures.loss_chart import loss_curves, path_curve
from loragrid.reporting.figures.study_figures import MOST_CURVES
from loragrid.reporting.figures.style import COLOURS, SERIES, matplotlib_style, new_figure
from loragrid.reporting.figures.svg import PageFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_ROWS, MOST_PARTS = 40, 10  # in the forest plot: rows, and parts of groups among them
LONGEST_NAME = 24  # characters of a run's name beside a line
LONGEST_LABEL = 58  # characters beside a row of the forest plot
LONGEST_LINE = 30
ROW_INCHES, LINE_INCHES = 0.24, 0.14
X_LABELS = {"tokens": "tokens seen in training", "steps": "optimizer steps", "epochs": "epochs"}


def draw_external_figures(
    results: ExternalResults, base: str | None, rows: list[BaseComparison], folder: Path
) -> PageFigures:
    """All figures that the files allow, saved in `folder`."""
    figures = PageFigures(folder)
    with matplotlib_style():
        _draw_losses(results, figures)
        _draw_forest(results, rows, base, figures)
    return figures


def _draw_losses(results: ExternalResults, figures: PageFigures) -> None:
    runs = [run for run in results.runs.values() if run.path is not None]
    if not runs:
        return
    # One axis for all: runs with another unit would need another one.
    unit = Counter(run.path_unit for run in runs).most_common(1)[0][0]
    x_label = X_LABELS[unit]
    runs = [run for run in runs if run.path_unit == unit][:MOST_CURVES]
    curves = [
        path_curve(shortened(run.name, LONGEST_NAME), SERIES[index % len(SERIES)], run.path)
        for index, run in enumerate(runs)
    ]
    figure = loss_curves(curves, x_label)
    # Other tools average over tokens, rows or batches, and their files do not say which.
    figure.axes[0].set_title("Loss, as logged")
    figures.add("losses", figure, f"Loss against {unit} of {plural(len(runs), 'run')}")


def _draw_forest(results: ExternalResults, rows: list[BaseComparison], base: str | None, figures: PageFigures) -> None:
    """All differences with an interval in one figure: shares in points, other scores relative to the base."""
    tested = [row for row in rows if row.test is not None]
    # Groups and settings before their parts, as they were judged.
    whole = [row for row in tested if not row.detail_of]
    parts = [row for row in tested if row.detail_of]
    shown = [*whole, *parts[:MOST_PARTS]][:MOST_ROWS]
    panels = [
        ([row for row in shown if results.unit(row.key) == "share"], "Difference, points", 1.0),
        ([row for row in shown if results.unit(row.key) != "share"], "Difference, % of the compared value", 100.0),
    ]
    # Relative to a base of 0 nothing can be drawn.
    panels = [([row for row in own if scale == 1 or row.base.value], title, scale) for own, title, scale in panels]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return
    longest = max(_label(row, base).count("\n") for own, _, _ in panels for row in own)
    row_inches = ROW_INCHES + longest * LINE_INCHES
    figure = new_figure(sum(0.75 + row_inches * len(own) for own, _, _ in panels))
    heights = [3 + len(own) for own, _, _ in panels]
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for one, (own, title, scale) in zip(axes, panels):
        _forest_panel(one, own, title, scale, base)
    drawn = sum(len(own) for own, _, _ in panels)
    if drawn < len(tested):
        axes[-1].set_xlabel(f"{drawn} of {len(tested)} differences; the table holds all")
    figures.add("forest", figure, f"{plural(drawn, 'difference')} with 95% intervals")


def _forest_panel(axes: "Axes", rows: list[BaseComparison], title: str, scale: float, base: str | None) -> None:
    axes.axvline(0, color=COLOURS["muted"], linewidth=1)
    for height, row in enumerate(reversed(rows)):
        whole = abs(row.base.value) / scale if scale != 1 else 1.0
        low, value, high = (end / whole for end in (row.test.low, row.difference, row.test.high))
        colour = COLOURS["s1" if row.higher_is_better is not None and not row.improves else "s0"]
        axes.plot([low, high], [height, height], color=colour, linewidth=1.4, solid_capstyle="round")
        mark = filled(VERDICT_MARKS.get(row.verdict, HOLLOW), colour)
        axes.plot(value, height, marker="o", markersize=5, markeredgewidth=1.3, **mark)
    axes.set_yticks(range(len(rows)), [_label(row, base) for row in reversed(rows)], color=COLOURS["ink"])
    for label, row in zip(axes.get_yticklabels(), reversed(rows)):
        # Parts of a group stand back behind it.
        label.set_color(COLOURS["muted" if row.detail_of else "ink"])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.set_title(title)
    if scale == 1:
        axes.xaxis.set_major_formatter(signed_points)


def _label(row: BaseComparison, base: str | None) -> str:
    against = "" if row.against == base else f" against {row.against}"
    return fill(shortened(f"{row.run}{against} · {score_name(row.key)}", LONGEST_LABEL), LONGEST_LINE)
