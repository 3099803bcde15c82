"""The look of the report's figures: colours, matplotlib settings, labels without overlaps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of the light page; in the page's SVG each becomes the CSS variable of its name. The series
# colours are those of Okabe & Ito (2008), "Color Universal Design", which people with the common
# forms of colour blindness can tell apart.
COLOURS = {
    "ink": "#1f2328",
    "muted": "#5f6770",
    "grid": "#dfe3e8",
    # Not pure white, so that replacing it by its variable leaves other white alone.
    "paper": "#fffffe",
    "base": "#7f8790",
    "s0": "#0072b2",
    "s1": "#d55e00",
    "s2": "#009e73",
    "s3": "#a8568f",
    "s4": "#b58900",
    "s5": "#3f8fbf",
}
SERIES = ("s0", "s1", "s2", "s3", "s4", "s5")
# SVG outlines around (0, 0), so that a setting is known by its shape where colours look alike; the base is a cross.
SHAPES = (
    "M-6 0A6 6 0 1 0 6 0A6 6 0 1 0-6 0Z",
    "M-5.5-5.5H5.5V5.5H-5.5Z",
    "M0-7.2L6.8 5.2H-6.8Z",
    "M0-7.6L7.6 0L0 7.6L-7.6 0Z",
    "M0 7.2L6.8-5.2H-6.8Z",
    "M-2.3-7H2.3V-2.3H7V2.3H2.3V7H-2.3V2.3H-7V-2.3H-2.3Z",
    "M0-7.2L6.9-2.2L4.2 5.8H-4.2L-6.9-2.2Z",
)
CROSS = "M-5-5L5 5M-5 5L5-5"
# 374 points: a phone shows the figure at about its own size, so its text stays readable.
WIDTH_INCHES = 5.2
PAIR_HEIGHT_INCHES = 3.1  # of the scores and the losses of an axis, drawn side by side
TEXT_POINTS = 10
# Between neighbouring labels, as a share of the axis: one line of text in figures of these heights.
LABEL_GAP = 0.075

MATPLOTLIB_SETTINGS = {
    # A fixed salt makes the SVG's ids, and with them its bytes, the same each time.
    "svg.hashsalt": "loragrid",
    "svg.fonttype": "none",
    # Run names may hold a dollar sign, which is no formula.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": TEXT_POINTS,
    "axes.titlesize": TEXT_POINTS,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": TEXT_POINTS - 1,
    "xtick.labelsize": TEXT_POINTS - 1,
    "ytick.labelsize": TEXT_POINTS - 1,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["grid"],
    "axes.titlecolor": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "axes.grid": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class LineEnd:
    """The last point of a line in data coordinates, with the line's name and matplotlib colour."""

    x: float
    y: float
    name: str
    colour: str


@contextmanager
def matplotlib_style() -> Iterator[None]:
    """Apply the report's matplotlib settings to everything drawn inside."""
    import matplotlib

    with matplotlib.rc_context(MATPLOTLIB_SETTINGS):
        yield


def new_figure(height_inches: float) -> "Figure":
    """An empty figure of the page's width."""
    # Figure and not pyplot: pyplot keeps every figure in a global list, and a study draws dozens.
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")


def spread_labels(positions: list[float], gap: float) -> list[float]:
    """Positions moved at least `gap` apart in their order; their mean stays where it was."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    placed = list(positions)
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    # One upward pass pushes all labels the same way: shifting them back by the mean halves the
    # largest distance.
    shift = sum(placed[i] - positions[i] for i in order) / max(1, len(order))
    return [value - shift for value in placed]


def label_line_ends(axes: "Axes", ends: list[LineEnd]) -> None:
    """Write the name of each line right of the plot at the height of its end, without overlaps."""
    low, high = axes.get_ylim()
    lines = 1 + max((end.name.count("\n") for end in ends), default=0)
    heights = spread_labels([min(end.y, high) for end in ends], (high - low) * LABEL_GAP * lines)
    # Labels that were pushed apart at the top would leave the picture.
    excess = max(0.0, max(heights, default=low) - high)
    heights = [height - excess for height in heights]
    for end, height in zip(ends, heights):
        axes.annotate(
            end.name,
            (1.0, (height - low) / (high - low)),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            color=end.colour,
            weight="bold",
            fontsize=9,
            verticalalignment="center",
            annotation_clip=False,
        )
