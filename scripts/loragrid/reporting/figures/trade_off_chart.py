"""The chart of what each run learned against what it kept."""

from typing import TYPE_CHECKING

from loragrid.reporting.figures.charts import FULL, HALF, MARKER, RunChange, filled, signed_points
from loragrid.reporting.figures.style import COLOURS, LABEL_GAP, new_figure, spread_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LABELS = 16


def trade_off(changes: list[RunChange], *, share: bool, margin: float) -> "Figure":
    """Gain on the target (x) against the change in retention (y), the runs on the Pareto front marked and joined.

    Runs have intervals and names. If there are more than MOST_LABELS, only those on the front have them. The band
    under zero is the accepted loss, `margin`.
    """
    figure = new_figure(3.6)
    axes = figure.subplots()
    axes.axhline(0, color=COLOURS["muted"], linewidth=1)
    axes.axvline(0, color=COLOURS["muted"], linewidth=1)
    axes.axhspan(-margin, 0, color=COLOURS["s2"], alpha=0.15, linewidth=0)
    front = sorted((change.gain.value, change.kept.value) for change in changes if change.on_front)
    axes.plot(
        [x for x, _ in front],
        [y for _, y in front],
        color=COLOURS["ink"],
        linewidth=1.0,
        linestyle="--",
    )
    # A thousand names and crosses would hide each other.
    named = changes
    if len(changes) > MOST_LABELS:
        named = [change for change in changes if change.on_front]
        rest = [(change.gain.value, change.kept.value) for change in changes if not change.on_front]
        dots = {"linestyle": "", "marker": "o", "markersize": 2.5, "alpha": 0.7}
        axes.plot(*zip(*rest), color=COLOURS["base"], **dots)
    for change in named:
        _draw_cross(axes, change)
    if len(named) <= MOST_LABELS:
        _label_points(axes, named)
    axes.yaxis.set_major_formatter(signed_points)
    axes.set_xlabel("learned: gain on the target")
    if share:
        axes.xaxis.set_major_formatter(signed_points)
        axes.set_xlabel("learned: gain on the target, points")
    axes.set_title("Kept: change in retention, points")
    return figure


def _draw_cross(axes: "Axes", change: RunChange) -> None:
    """A run's point with both of its intervals; half full if it is one adapter."""
    x, y = change.gain, change.kept
    # Green means "better" elsewhere on the page, which the front does not prove.
    colour, marker = (COLOURS["ink"], "D") if change.on_front else (COLOURS["base"], "o")
    axes.plot([x.low, x.high], [y.value, y.value], color=colour, linewidth=0.9, alpha=0.7)
    axes.plot([x.value, x.value], [y.low, y.high], color=colour, linewidth=0.9, alpha=0.7)
    mark = HALF if change.one_seed else FULL
    axes.plot(x.value, y.value, marker=marker, markersize=MARKER + 1, **filled(mark, colour))


def _label_points(axes: "Axes", changes: list[RunChange]) -> None:
    """Names in a column on the right, each joined to its point, so that they do not overlap."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    # Fixed from here on, or the annotations would stretch the limits that their places are computed
    # from.
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    heights = spread_labels([change.kept.value for change in changes], (high - low) * LABEL_GAP)
    for change, height in zip(changes, heights):
        weight, colour = "normal", COLOURS["muted"]
        if change.on_front:
            weight, colour = "bold", COLOURS["ink"]
        axes.annotate(
            change.label,
            (change.gain.value, change.kept.value),
            xycoords="data",
            xytext=(1.03, (height - low) / (high - low)),
            textcoords="axes fraction",
            verticalalignment="center",
            fontsize=9,
            weight=weight,
            color=colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": COLOURS["grid"],
                "linewidth": 0.9,
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )
