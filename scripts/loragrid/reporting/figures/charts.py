"""The report's pictures of scores, differences and lengths: plain values to a matplotlib figure of the page's width."""

import math
from dataclasses import dataclass
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING

from loragrid.reporting.figures.svg import COLOURS, label_ends, new_figure, spread_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKER = 6.0
MOST_LABELS = 16
LONGEST_LINE = 28  # characters of a run's name


@dataclass(frozen=True)
class Point:
    """A value with its interval; None where there is none. `strong` fills the marker: the difference is proved."""

    label: str
    value: float
    low: float
    high: float
    strong: bool = True


def scores_by_value(
    series: list[tuple[str, str, list[Point | None]]], labels: list[str], marked: int, *, share: bool, title: str
) -> "Figure":
    """Scores with intervals over the values of one axis. `series`: (name, colour key, a point per value); the value
    number `marked` is the base case."""
    figure = new_figure(2.9)
    axes = figure.subplots()
    width = 0.16
    ends = []
    for number, (name, colour, values) in enumerate(series):
        at = [index + (number - (len(series) - 1) / 2) * width for index in range(len(labels))]
        there = [(x, point) for x, point in zip(at, values) if point is not None]
        hollow = name.startswith("untrained")
        axes.plot(
            [x for x, _ in there],
            [point.value for _, point in there],
            color=COLOURS[colour],
            linewidth=0 if hollow else 1.2,
            alpha=0.5,
        )
        for x, point in there:
            _interval(axes, x, point, COLOURS[colour], vertical=True, hollow=hollow)
        if there:
            ends.append((there[-1][0], there[-1][1].value, name, COLOURS[colour]))
    axes.axvspan(marked - 0.42, marked + 0.42, color=COLOURS["grid"], alpha=0.35, linewidth=0)
    axes.set_xticks(
        range(len(labels)), [f"{text}\nbase case" if i == marked else text for i, text in enumerate(labels)]
    )
    axes.set_xlim(-0.6, len(labels) - 0.4)
    if share:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f}%")
    axes.set_title(title)
    axes.grid(axis="x", visible=False)
    label_ends(axes, ends)
    return figure


def _interval(axes: "Axes", at: float, point: Point, colour: str, *, vertical: bool, hollow: bool = False) -> None:
    bounds = ([at, at], [point.low, point.high])
    if not any(math.isnan(bound) for bound in (point.low, point.high)):
        axes.plot(*(bounds if vertical else bounds[::-1]), color=colour, linewidth=1.4, solid_capstyle="round")
    place = (at, point.value) if vertical else (point.value, at)
    face = COLOURS["paper"] if hollow or not point.strong else colour
    axes.plot(*place, marker="o", markersize=MARKER, markerfacecolor=face, markeredgecolor=colour, markeredgewidth=1.5)


def differences(
    rows: list[tuple[str, Point | None, Point | None]], titles: tuple[str, str], *, share: bool, note: str = ""
) -> "Figure":
    """Two panels with a row per run: what it learned (left) and what it kept (right), as differences from its base. Long
    names take two lines, which leaves the panels room; `note` says which runs are shown where not all are."""
    figure = new_figure(0.75 + 0.36 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    figure.get_layout_engine().set(wspace=0.1)
    for axes, title, colour, side in ((left, titles[0], "s0", 1), (right, titles[1], "s1", 2)):
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        for height, row in enumerate(reversed(rows)):
            if row[side] is not None:
                _interval(axes, height, row[side], COLOURS[colour], vertical=False)
        axes.set_title(title)
        axes.grid(axis="y", visible=False)
        if share or side == 2:
            axes.xaxis.set_major_formatter(signed_points)
    names = [fill(row[0], LONGEST_LINE, max_lines=2, placeholder="…") for row in reversed(rows)]
    left.set_yticks(range(len(rows)), names, color=COLOURS["ink"])
    left.set_xlabel(note)
    left.set_ylim(-0.6, len(rows) - 0.4)
    return figure


def one_difference(rows: list[tuple[str, Point]], title: str, *, share: bool) -> "Figure":
    """Differences of one score from the base, a row per run, with intervals."""
    figure = new_figure(0.7 + 0.33 * len(rows))
    axes = figure.subplots()
    axes.axvline(0, color=COLOURS["muted"], linewidth=1)
    for height, (_, point) in enumerate(reversed(rows)):
        _interval(axes, height, point, COLOURS["s0"], vertical=False)
    axes.set_yticks(range(len(rows)), [label for label, _ in reversed(rows)], color=COLOURS["ink"])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.set_title(f"{title}, points" if share else title)
    if share:
        axes.xaxis.set_major_formatter(signed_points)
    return figure


def signed_points(value: float, _place: int = 0) -> str:
    """A share's difference on an axis, as points with its sign."""
    text = f"{value * 100:+.0f}"
    return "0" if text in ("+0", "-0") else text.replace("-", "−")


def trade_off(points: list[tuple[str, Point, Point, bool]], *, share: bool, margin: float) -> "Figure":
    """Gain on the target (x) against the change in retention (y); runs that no other beats in both are coloured and joined.
    Few runs are drawn with intervals and names; of many, only those on the front. The band at zero is the accepted loss."""
    figure = new_figure(3.6)
    axes = figure.subplots()
    axes.axhline(0, color=COLOURS["muted"], linewidth=1)
    axes.axvline(0, color=COLOURS["muted"], linewidth=1)
    axes.axhspan(-margin, 0, color=COLOURS["s2"], alpha=0.15, linewidth=0)
    front = sorted((x.value, y.value) for _, x, y, best in points if best)
    axes.plot([x for x, _ in front], [y for _, y in front], color=COLOURS["s2"], linewidth=1.2, linestyle="--")
    many = len(points) > MOST_LABELS
    if many:
        rest = [(x.value, y.value) for _, x, y, best in points if not best]
        axes.plot(*zip(*rest), linestyle="", marker="o", markersize=2.5, color=COLOURS["base"], alpha=0.7)
    told = [point for point in points if point[3] or not many]
    for _, x, y, best in told:
        colour = COLOURS["s2"] if best else COLOURS["base"]
        axes.plot([x.low, x.high], [y.value, y.value], color=colour, linewidth=0.9, alpha=0.7)
        axes.plot([x.value, x.value], [y.low, y.high], color=colour, linewidth=0.9, alpha=0.7)
        axes.plot(x.value, y.value, marker="o", markersize=MARKER + 1, color=colour)
    if len(told) <= MOST_LABELS:
        _label_points(axes, told)
    axes.yaxis.set_major_formatter(signed_points)
    if share:
        axes.xaxis.set_major_formatter(signed_points)
    axes.set_xlabel("learned: gain on the target" + (", points" if share else ""))
    axes.set_title("Kept: change in retention, points")
    return figure


def _label_points(axes: "Axes", points: list[tuple[str, Point, Point, bool]]) -> None:
    """Names in a column on the right, each joined to its point: labels beside the points would lie on each other."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    heights = spread_labels([y.value for _, _, y, _ in points], (high - low) * 0.075)
    for (label, x, y, best), height in zip(points, heights):
        axes.annotate(
            label,
            (x.value, y.value),
            xycoords="data",
            xytext=(1.03, (height - low) / (high - low)),
            textcoords="axes fraction",
            verticalalignment="center",
            fontsize=9,
            weight="bold" if best else "normal",
            color=COLOURS["s2"] if best else COLOURS["muted"],
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": COLOURS["grid"], "linewidth": 0.9, "shrinkA": 1, "shrinkB": 4},
        )


def histogram(edges: list[float], counts: list[float], limit: float) -> "Figure":
    """Lengths of the data's rows, tokens, with the longest length that was kept."""
    figure = new_figure(1.9)
    axes = figure.subplots()
    widths = [b - a for a, b in pairwise(edges)]
    open_ended = len(widths) > 2 and widths[-1] > 2 * widths[-2]
    if open_ended:  # all that is longer in one bin: as wide as it is, it would hide the others
        widths[-1] = widths[-2]
    colours = [COLOURS["s0"]] * (len(widths) - open_ended) + [COLOURS["base"]] * open_ended
    axes.bar(edges[:-1], counts, width=widths, align="edge", color=colours, alpha=0.8)
    if open_ended:
        at = (edges[-2] + widths[-1], counts[-1])
        axes.annotate("longer", at, xytext=(4, -8), textcoords="offset points", fontsize=9, color=COLOURS["muted"])
    axes.axvline(limit, color=COLOURS["s1"], linewidth=1.2, linestyle="--")
    axes.set_title("Rows by length, tokens")
    axes.grid(axis="x", visible=False)
    return figure
