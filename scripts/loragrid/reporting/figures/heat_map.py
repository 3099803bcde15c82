"""The chart of scores at every pair of values of two settings."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loragrid.formatting import score
from loragrid.reporting.figures.style import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARKEST = 0.45  # opacity of the best score's field; text stays readable on it in both schemes
LEAST_STEPS = 5  # of the last printed digit, between the palest and the strongest field
LARGEST_TEXT_COLUMNS = 6  # more columns have smaller text
# Whether a row's best is proved for settings, shown for its adapters, or only measured → its outline.
OUTLINES = {True: "-", False: "--", None: ":"}


@dataclass(frozen=True)
class HeatMap:
    """Scores by row and column, None where there is none.

    `best`: the place of each row's best column, or None; `proved`: whether it is proved to be (True), its
    adapters only differ from the others' (False), or neither (None). `base`: row and column of the base case.
    """

    rows: list[str]
    columns: list[str]
    scores: list[list[float | None]]
    best: list[int | None]
    proved: list[bool | None]
    base: tuple[int, int] | None
    row_axis: str
    column_axis: str
    unit: str
    higher_is_better: bool


def heat_map(found: HeatMap, title: str) -> "Figure":
    """A field per pair of values: the stronger its colour, the better.

    Outlined is the best of its row, the surer the fuller the line.
    """
    from matplotlib.patches import Rectangle

    figure = new_figure(0.95 + 0.46 * len(found.rows))
    axes = figure.subplots()
    size = 10 if len(found.columns) <= LARGEST_TEXT_COLUMNS else 7.5
    for row, line in enumerate(found.scores):
        for column, value in enumerate(line):
            shade = _shade(value, found)
            axes.add_patch(
                Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=COLOURS["s0"], alpha=shade, linewidth=0)
            )
            is_best = found.best[row] == column
            if is_best:
                line = OUTLINES[found.proved[row]]
                box = Rectangle((column - 0.47, row - 0.45), 0.94, 0.90, fill=False, linewidth=2, linestyle=line)
                box.set_edgecolor(COLOURS["s1"])
                axes.add_patch(box)
            is_base = found.base == (row, column)
            text = score(value, found.unit)
            weight = "bold" if is_best else "normal"
            height = row - 0.1 if is_base else row
            same = {"horizontalalignment": "center", "verticalalignment": "center"}
            axes.text(column, height, text, fontsize=size, weight=weight, color=COLOURS["ink"], **same)
            if is_base:
                words = "base case" if len(found.columns) <= LARGEST_TEXT_COLUMNS else "base"
                axes.text(column, row + 0.27, words, fontsize=7.5, color=COLOURS["ink"], **same)
    axes.set_xticks(range(len(found.columns)), found.columns)
    axes.set_yticks(range(len(found.rows)), found.rows, color=COLOURS["ink"])
    axes.set_xlim(-0.55, len(found.columns) - 0.45)
    # The first row is at the top, as in a table.
    axes.set_ylim(len(found.rows) - 0.45, -0.55)
    axes.set_xlabel(found.column_axis)
    axes.set_ylabel(found.row_axis)
    axes.set_title(title)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    return figure


def _shade(value: float | None, found: HeatMap) -> float:
    """Opacity of a field, from almost none for the worst score to `DARKEST` for the best.

    Scores that look alike in print have similar shades.
    """
    known = [score for line in found.scores for score in line if score is not None]
    if value is None:
        return 0.04
    span = max(max(known) - min(known), LEAST_STEPS * _printed_step(known, found.unit))
    place = 0.5 + (value - (max(known) + min(known)) / 2) / span
    if not found.higher_is_better:
        place = 1 - place
    # Rounded, so that the page has a few dozen styles instead of one per field.
    return round(0.04 + (DARKEST - 0.04) * place, 2)


def _printed_step(values: list[float], unit: str) -> float:
    """What the last printed digit of the largest score stands for: a point, or the third significant digit."""
    largest = max(abs(value) for value in values)
    if unit == "share" or largest == 0:
        return 0.01
    return 10.0 ** (math.floor(math.log10(largest)) - 2)
