"""The figure of losses over tokens, drawn from plain values."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from loragrid.comparing.diagnosing.run_evidence import LossPath
from loragrid.reporting.figures.style import (
    COLOURS,
    PAIR_HEIGHT_INCHES,
    SERIES,
    LineEnd,
    label_line_ends,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHED_POINTS = 30
MOST_RISE = 0.4  # above the first loss that is shown, as a share of the fall to the lowest
ABOVE = "↑"  # before the last loss of a line that leaves the figure; the caption explains it
Line = tuple[list[float], list[float]]  # x and y


@dataclass(frozen=True)
class Curve:
    """Losses of one run against tokens.

    `train` and `heldout` are (tokens, losses); `colour` is a key of COLOURS. `band`: tokens with the lowest
    and the highest held-out loss of several seeds.
    """

    label: str
    colour: str
    train: Line
    heldout: Line
    band: tuple[list[float], list[float], list[float]] | None = None
    dashed: bool = False


def seeds_curve(label: str, colour: str, paths: list[LossPath]) -> Curve:
    """Several seeds of one setting as one curve: their means, at the tokens of the first, and their range."""
    first = path_curve(label, colour, paths[0])
    if len(paths) == 1:
        return first
    shared = [
        path_curve(label, colour, path)
        for path in paths
        if len(path.heldout) and path.heldout_tokens[-1] >= 0.99 * paths[0].heldout_tokens[-1]
    ]
    tokens = first.heldout[0]
    heldout = np.array([np.interp(tokens, *curve.heldout) for curve in shared])
    train = np.array([np.interp(first.train[0], *curve.train) for curve in shared if curve.train[0]])
    means = (first.train[0], train.mean(axis=0).tolist()) if len(train) else first.train
    if not len(heldout):
        return first
    band = (tokens, heldout.min(axis=0).tolist(), heldout.max(axis=0).tolist())
    return Curve(label, colour, means, (tokens, heldout.mean(axis=0).tolist()), band)


def path_curve(label: str, colour: str, path: LossPath) -> Curve:
    """A run's loss path as a curve."""
    train = (path.train_tokens.tolist(), path.train.tolist())
    heldout = (path.heldout_tokens.tolist(), path.heldout.tolist())
    return Curve(label, colour, train, heldout)


def loss_curves(curves: list[Curve], x_label: str = "tokens seen in training") -> "Figure":
    """Held-out loss (bold) and training loss (faint) against tokens seen.

    Each run's name is at the end of its line.
    """
    figure = new_figure(PAIR_HEIGHT_INCHES)
    axes = figure.subplots()
    ends = []
    for curve in curves:
        ends += _draw_curve(axes, curve)
    _fit_losses(axes, curves)
    # The limits come before the labels, whose heights are computed from them.
    last = max((end.x for end in ends), default=1)
    axes.set_xlim(0, last or 1)
    top = axes.get_ylim()[1]
    label_line_ends(axes, [_with_loss(end) if end.y > top else end for end in ends])
    axes.set_xlabel(x_label)
    axes.set_title("Loss, nats per token")
    axes.xaxis.set_major_formatter(lambda value, _: thousands(value))
    axes.grid(axis="x", visible=False)
    return figure


def _with_loss(end: LineEnd) -> LineEnd:
    """The end of a line that leaves the figure, named with its loss."""
    return replace(end, name=f"{end.name} {ABOVE} {end.y:.3g}")


def _draw_curve(axes: "Axes", curve: Curve) -> list[LineEnd]:
    """Draw one run.

    The end of its held-out line, or of its training line if nothing was held out.
    """
    colour = COLOURS[curve.colour]
    train, heldout = _finite(smoothed(curve.train)), _finite(curve.heldout)
    style = "--" if curve.dashed else "-"
    axes.plot(*train, color=colour, linewidth=0.9, alpha=0.35, linestyle=style)
    if curve.band is not None:
        axes.fill_between(*curve.band, color=colour, alpha=0.2, linewidth=0)
    axes.plot(*heldout, color=colour, linewidth=2.0, marker="o", markersize=2.6, linestyle=style)
    for tokens, losses in (heldout, train):
        if losses:
            return [LineEnd(tokens[-1], losses[-1], curve.label, colour)]
    return []


def _fit_losses(axes: "Axes", curves: list[Curve]) -> None:
    """Set the limits by the held-out losses; noisy training losses may leave the figure."""
    heldout = [losses for losses in (_finite(curve.heldout)[1] for curve in curves) if losses]
    if not heldout:
        return
    bands = [loss for curve in curves if curve.band for loss in (*curve.band[1], *curve.band[2]) if math.isfinite(loss)]
    shown = [loss for losses in heldout for loss in losses] + bands
    low, high, first = min(shown), max(shown), max(losses[0] for losses in heldout)
    # Equal losses would leave an axis without height.
    room = max(high - low, 1e-6)
    top = min(high + 0.08 * room, 2 * first)
    if any(losses[-1] > losses[0] for losses in heldout):
        # A run that ends above its first loss would flatten all others.
        top = min(top, first + max(MOST_RISE * (first - low), 0.1 * first))
    axes.set_ylim(max(0.0, low - 0.08 * min(room, top - low)), top)


def smoothed(curve: Line, points: int = SMOOTHED_POINTS) -> Line:
    """A noisy curve as means of equal stretches.

    At most `points` of them, which keeps the page small.
    """
    tokens, losses = curve
    stride = max(1, math.ceil(len(tokens) / points))
    stretches = [slice(start, start + stride) for start in range(0, len(tokens), stride)]
    means = [(_mean(tokens[stretch]), _mean(losses[stretch])) for stretch in stretches]
    return [x for x, _ in means], [y for _, y in means]


def thousands(value: float) -> str:
    """A count on an axis: 500, 40k, 1.2M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def series_colour(number: int) -> str:
    """Colour key of the `number`-th line beside the base case, which has the first."""
    return SERIES[1 + number % (len(SERIES) - 1)]


def _finite(curve: Line) -> Line:
    kept = [(x, y) for x, y in zip(*curve) if math.isfinite(x) and math.isfinite(y)]
    return [x for x, _ in kept], [y for _, y in kept]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
