"""Charts of results over training rows, and of changes along runs."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loragrid.reporting.figures.charts import FULL, HALF, Estimate, filled, signed_points
from loragrid.reporting.figures.loss_chart import thousands
from loragrid.reporting.figures.style import COLOURS, PAIR_HEIGHT_INCHES, LineEnd, label_line_ends, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RowsCurve:
    """One result over training rows: means with intervals, single runs, and a fitted law.

    `law` has lines of rows, value, low and high, and reaches beyond the last measured size.
    """

    rows: list[float]
    means: list[Estimate | None]
    colour: str
    runs: list[tuple[float, float]] = field(default_factory=list)
    law: list[list[float]] | None = None


def over_rows(curve: RowsCurve, title: str, *, share: bool) -> "Figure":
    """A result over the number of training rows, on a logarithmic axis."""
    figure = new_figure(PAIR_HEIGHT_INCHES)
    axes = figure.subplots()
    colour = COLOURS[curve.colour]
    axes.set_xscale("log")
    if curve.law is not None:
        _draw_law(axes, curve, colour)
    points = [(rows, mean) for rows, mean in zip(curve.rows, curve.means) if mean]
    if curve.law is None:
        axes.plot([x for x, _ in points], [mean.value for _, mean in points], color=colour, linewidth=1.2, alpha=0.5)
    for x, mean in points:
        axes.plot([x, x], [mean.low, mean.high], color=colour, linewidth=1.4, solid_capstyle="round")
        axes.plot(x, mean.value, marker="o", markersize=6, **filled(mean.mark, colour))
    dots = {"linestyle": "", "marker": "o", "markersize": 4, "markerfacecolor": COLOURS["paper"]}
    axes.plot(*zip(*curve.runs), markeredgecolor=colour, **dots) if curve.runs else None
    axes.set_xticks(curve.rows, [thousands(rows) for rows in curve.rows])
    axes.minorticks_off()
    axes.set_xlabel("training rows")
    axes.set_title(title)
    if share:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f}%")
    axes.grid(axis="x", visible=False)
    return figure


def _draw_law(axes: "Axes", curve: RowsCurve, colour: str) -> None:
    rows, value, low, high = curve.law
    axes.fill_between(rows, low, high, color=colour, alpha=0.12, linewidth=0)
    measured = [place for place, at in enumerate(rows) if at <= curve.rows[-1] * 1.001]
    end = measured[-1] + 1
    axes.plot(rows[:end], value[:end], color=colour, linewidth=1.2)
    # Beyond the largest size the law is a guess.
    axes.plot(rows[end - 1 :], value[end - 1 :], color=colour, linewidth=1.2, linestyle="--")


@dataclass(frozen=True)
class ChangeLine:
    """Changes of one setting from its base over tokens seen; the first point is the base, at 0.

    `one_seed`: it is one run, and no mean over seeds.
    """

    label: str
    colour: str
    tokens: list[float]
    changes: list[Estimate]
    one_seed: bool = False


def over_tokens(lines: list[ChangeLine], title: str, *, share: bool, margin: float | None = None) -> "Figure":
    """Changes from the base along runs; `margin`: an accepted loss, drawn as a band under zero."""
    figure = new_figure(PAIR_HEIGHT_INCHES)
    axes = figure.subplots()
    axes.axhline(0, color=COLOURS["muted"], linewidth=1)
    if margin is not None:
        axes.axhspan(-margin, 0, color=COLOURS["s2"], alpha=0.15, linewidth=0)
    last = max((line.tokens[-1] for line in lines), default=1)
    ends = []
    for number, line in enumerate(lines):
        # Beside each other, so that the intervals of several settings stay apart.
        offset = (number - (len(lines) - 1) / 2) * 0.006 * last
        ends.append(_draw_changes(axes, line, offset))
    axes.set_xlim(-0.02 * last, 1.03 * last)
    if share:
        axes.yaxis.set_major_formatter(signed_points)
    label_line_ends(axes, ends)
    axes.set_xlabel("tokens seen in training")
    axes.xaxis.set_major_formatter(lambda value, _: thousands(value))
    axes.set_title(title)
    axes.grid(axis="x", visible=False)
    return figure


def _draw_changes(axes: "Axes", line: ChangeLine, offset: float) -> LineEnd:
    colour = COLOURS[line.colour]
    places = [at + (offset if at else 0) for at in line.tokens]
    values = [change.value for change in line.changes]
    mark = filled(HALF if line.one_seed else FULL, colour)
    axes.plot(places, values, color=colour, linewidth=1.6, marker="o", markersize=5, **mark)
    for x, change in zip(places[1:], line.changes[1:]):
        axes.plot([x, x], [change.low, change.high], color=colour, linewidth=1.1, alpha=0.7)
    return LineEnd(places[-1], values[-1], line.label, colour)
