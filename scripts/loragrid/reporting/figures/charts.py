"""Figures of scores, differences and row lengths, drawn from plain values."""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING

from loragrid.reporting.figures.style import COLOURS, PAIR_HEIGHT_INCHES, LineEnd, label_line_ends, new_figure
from loragrid.reporting.figures.value_axis import ValueAxis
from loragrid.statistics.paired_statistics import BETTER, DIFFER, WORSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKER = 6.0
# Single seeds beside their mean, which would cover them; in a row of differences above it.
SEED_DOTS = {
    "linestyle": "", "marker": "o", "markersize": 3.4, "markeredgewidth": 1.0, "markerfacecolor": COLOURS["paper"],
}  # fmt: skip
SEEDS_ABOVE = 0.28
LONGEST_TICK = 16  # characters of a value under an axis
LETTERS_ACROSS = 48  # that fit under an axis; where the values have more, their names are slanted
LONGEST_LINE = 28  # characters of a run's name
SERIES_SPACING = 0.18  # between the series at one value, as a share of the gap between values


# How a marker is filled, as matplotlib calls it: what holds for settings, what holds for adapters of one
# seed, and what is open.
FULL, HALF, HOLLOW = "full", "left", "none"
VERDICT_MARKS = {BETTER: FULL, WORSE: FULL, DIFFER: HALF}


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, NaN where it is unknown. `mark` fills the marker."""

    value: float
    low: float
    high: float
    mark: str = FULL


@dataclass(frozen=True)
class ScoreSeries:
    """Scores over the values of an axis, None where there is none. `colour` is a key of COLOURS.

    `single`: per value the scores of its single seeds, where there are several.
    """

    name: str
    colour: str
    scores: list[Estimate | None]
    untrained: bool = False
    single: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class RunChange:
    """What one run gained on the target and how its retention changed.

    `seeds`: the gains of its single seeds. `on_front`: no other run is better in both. `one_seed`: it is one adapter,
    and no mean over seeds.
    """

    label: str
    gain: Estimate
    kept: Estimate | None
    seeds: tuple[float, ...] = ()
    on_front: bool = False
    one_seed: bool = False


def scores_by_value(series: list[ScoreSeries], along: ValueAxis, *, share: bool, title: str) -> "Figure":
    """Scores with intervals over the values of one axis; the base case's is shaded if scored."""
    figure = new_figure(PAIR_HEIGHT_INCHES)
    axes = figure.subplots()
    ends, spacing = [], SERIES_SPACING * along.gap
    # The series of one value share at most two thirds of the room that the nearest two values have.
    spacing = min(spacing, 0.66 / max(1, len(series)))
    for number, one in enumerate(series):
        offset = (number - (len(series) - 1) / 2) * spacing
        ends += _draw_series(axes, one, [place + offset for place in along.places], spacing)
    # Arms of several settings have long names.
    ticks = [fill(value, LONGEST_TICK) for value in along.values]
    if along.base_case is not None:
        middle = along.places[along.base_case]
        axes.axvspan(middle - 0.42, middle + 0.42, color=COLOURS["grid"], alpha=0.35, linewidth=0)
        if along.values[along.base_case] != "base case":
            ticks[along.base_case] += "\nbase case"
    crowded = max(len(line) for tick in ticks for line in tick.split("\n")) > LETTERS_ACROSS / len(ticks)
    if crowded and along.base_case is not None:
        # The second line of a slanted name would lie on its neighbour.
        ticks[along.base_case] = ticks[along.base_case].removesuffix("\nbase case")
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(along.places, ticks, **slanted)
    axes.set_xlim(along.places[0] - 0.6 * along.gap, along.places[-1] + 0.6 * along.gap)
    axes.set_xlabel(along.label)
    if share:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f}%")
    axes.set_title(title)
    axes.grid(axis="x", visible=False)
    label_line_ends(axes, ends)
    return figure


def _draw_series(axes: "Axes", series: ScoreSeries, places: list[float], spacing: float) -> list[LineEnd]:
    """Draw one series at its places; its end, or nothing if it has no score."""
    colour = COLOURS[series.colour]
    points = [(place, score) for place, score in zip(places, series.scores) if score]
    # Only trained runs are joined: the untrained scores of one base are copies, and their line
    # would say nothing.
    width = 0 if series.untrained else 1.2
    axes.plot(
        [x for x, _ in points],
        [score.value for _, score in points],
        color=colour,
        linewidth=width,
        alpha=0.5,
    )
    for x, score in points:
        _draw_estimate(axes, x, score, colour, vertical=True)
    for place, values in zip(places, series.single):
        axes.plot([place + 0.42 * spacing] * len(values), values, color=colour, **SEED_DOTS)
    return [LineEnd(x, score.value, series.name, colour) for x, score in points[-1:]]


def _draw_estimate(
    axes: "Axes",
    at: float,
    estimate: Estimate,
    colour: str,
    *,
    vertical: bool,
) -> None:
    bounds, place = ([at, at], [estimate.low, estimate.high]), (at, estimate.value)
    if not vertical:
        bounds, place = bounds[::-1], place[::-1]
    # A score without a standard error has a point and no interval.
    if not (math.isnan(estimate.low) or math.isnan(estimate.high)):
        axes.plot(*bounds, color=colour, linewidth=1.4, solid_capstyle="round")
    axes.plot(*place, marker="o", markersize=MARKER, markeredgewidth=1.5, **filled(estimate.mark, colour))


def filled(mark: str, colour: str) -> dict[str, str]:
    """How matplotlib draws a marker that is full, half full or hollow."""
    # A hollow marker has the colour of the page, which covers the line behind it.
    face, style = (COLOURS["paper"], FULL) if mark == HOLLOW else (colour, mark)
    return {
        "fillstyle": style,
        "markerfacecolor": face,
        "markerfacecoloralt": COLOURS["paper"],
        "markeredgecolor": colour,
    }


def differences(changes: list[RunChange], titles: tuple[str, ...], *, share: bool, note: str = "") -> "Figure":
    """A row per run: its gain (left), and in the second of two panels its change in retention.

    `titles`: of the panels, one or two. `share`: whether the gain is a share, drawn in points. `note` says
    which runs are shown if not all are.
    """
    figure = new_figure(0.75 + 0.36 * len(changes))
    panels = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    figure.get_layout_engine().set(wspace=0.1)
    left, right = panels[0], panels[-1]
    for axes, title in zip(panels, titles):
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        axes.set_title(title)
        axes.grid(axis="y", visible=False)
    # matplotlib counts rows from below, readers from above.
    bottom_up = changes[::-1]
    for height, change in enumerate(bottom_up):
        _draw_estimate(left, height, change.gain, COLOURS["s0"], vertical=False)
        left.plot(change.seeds, [height + SEEDS_ABOVE] * len(change.seeds), color=COLOURS["s0"], **SEED_DOTS)
        if change.kept is not None:
            _draw_estimate(right, height, change.kept, COLOURS["s1"], vertical=False)
    if share:
        left.xaxis.set_major_formatter(signed_points)
    if right is not left:
        right.xaxis.set_major_formatter(signed_points)
    # A long name takes two lines, which leaves the panels more room.
    names = [fill(change.label, LONGEST_LINE, max_lines=2, placeholder="…") for change in bottom_up]
    left.set_yticks(range(len(changes)), names, color=COLOURS["ink"])
    left.set_xlabel(note)
    left.set_ylim(-0.6, len(changes) - 0.4)
    return figure


def one_difference(rows: list[tuple[str, Estimate]], title: str, *, share: bool) -> "Figure":
    """Differences of one score from the base's, a row per run, with intervals."""
    figure = new_figure(0.7 + 0.33 * len(rows))
    axes = figure.subplots()
    axes.axvline(0, color=COLOURS["muted"], linewidth=1)
    bottom_up = rows[::-1]
    for height, (_, estimate) in enumerate(bottom_up):
        _draw_estimate(axes, height, estimate, COLOURS["s0"], vertical=False)
    axes.set_yticks(range(len(rows)), [label for label, _ in bottom_up], color=COLOURS["ink"])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.set_title(f"{title}, points" if share else title)
    if share:
        axes.xaxis.set_major_formatter(signed_points)
    return figure


def signed_points(value: float, _place: int = 0) -> str:
    """A share's difference on an axis, as points with its sign."""
    text = f"{value * 100:+.0f}"
    if text in ("+0", "-0"):
        return "0"
    return text.replace("-", "−")


def length_histogram(edges: list[float], counts: list[float], limit: float) -> "Figure":
    """Lengths of the data's rows, tokens.

    `edges` has one more entry than `counts`; `limit`: the longest length kept.
    """
    figure = new_figure(1.9)
    axes = figure.subplots()
    widths = [b - a for a, b in pairwise(edges)]
    colours = [COLOURS["s0"]] * len(widths)
    # The last bin may hold all longer rows. Drawn at its real width it would squeeze the others
    # into a line.
    open_ended = len(widths) > 2 and widths[-1] > 2 * widths[-2]
    if open_ended:
        widths[-1] = widths[-2]
        colours[-1] = COLOURS["base"]
    axes.bar(edges[:-1], counts, width=widths, align="edge", color=colours, alpha=0.8)
    if open_ended:
        at = (edges[-2] + widths[-1], counts[-1])
        axes.annotate(
            "longer",
            at,
            xytext=(4, -8),
            textcoords="offset points",
            fontsize=9,
            color=COLOURS["muted"],
        )
    axes.axvline(limit, color=COLOURS["s1"], linewidth=1.2, linestyle="--")
    axes.set_title("Rows by length, tokens")
    axes.grid(axis="x", visible=False)
    return figure
