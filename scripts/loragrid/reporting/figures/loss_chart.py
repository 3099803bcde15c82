"""The report's picture of losses over tokens: plain values to a matplotlib figure of the page's width."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loragrid.comparing.run_evidence import LossPath
from loragrid.reporting.figures.svg import COLOURS, SERIES, label_ends, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """Losses of one run against tokens. `train` and `heldout` are (tokens, loss) lists; `colour` a key of COLOURS."""

    label: str
    colour: str
    train: tuple[list[float], list[float]]
    heldout: tuple[list[float], list[float]]


def path_curve(label: str, colour: str, path: LossPath) -> Curve:
    """A run's loss path as a curve."""
    pairs = ((path.train_tokens, path.train), (path.heldout_tokens, path.heldout))
    train, heldout = ((at.tolist(), losses.tolist()) for at, losses in pairs)
    return Curve(label, colour, train, heldout)


def loss_curves(curves: list[Curve], x_label: str = "tokens seen in training") -> "Figure":
    """Held-out loss (bold) and training loss (faint) against tokens seen, each run named at the end of its line."""
    figure = new_figure(3.1)
    axes = figure.subplots()
    ends = []
    for curve in curves:
        colour = COLOURS[curve.colour]
        axes.plot(*_finite(smoothed(curve.train)), color=colour, linewidth=0.9, alpha=0.35)
        tokens, losses = _finite(curve.heldout)
        axes.plot(tokens, losses, color=colour, linewidth=2.0, marker="o", markersize=2.6)
        tokens, losses = (tokens, losses) if losses else _finite(smoothed(curve.train))
        if losses:
            ends.append((tokens[-1], losses[-1], curve.label, colour))
    _fit_losses(axes, [_finite(curve.heldout)[1] for curve in curves])
    last = max((tokens for tokens, *_ in ends), default=1)
    axes.set_xlim(0, last * 1.0 or 1)
    label_ends(axes, ends)
    axes.set_xlabel(x_label)
    axes.set_title("Loss, nats per token")
    axes.xaxis.set_major_formatter(lambda value, _: thousands(value))
    axes.grid(axis="x", visible=False)
    return figure


def _fit_losses(axes: "Axes", heldout: list[list[float]]) -> None:
    """Limits by the held-out losses: noisy training losses may leave the picture, and a diverging run would press all
    others into a line, so what lies beyond twice the first loss does too."""
    shown = [loss for losses in heldout for loss in losses]
    if shown:
        low, high = min(shown), max(shown)
        room = max(high - low, 1e-6)
        # A diverging run must not flatten the others, and no loss lies below zero.
        top = min(high + 0.08 * room, 2 * max(losses[0] for losses in heldout if losses))
        axes.set_ylim(max(0.0, low - 0.08 * min(room, top - low)), top)


def smoothed(curve: tuple[list[float], list[float]], points: int = 30) -> tuple[list[float], list[float]]:
    """A long noisy curve as means of equal stretches: at most `points` of them, so that pages stay small."""
    tokens, losses = curve
    stride = max(1, math.ceil(len(tokens) / points))
    chunks = [slice(start, start + stride) for start in range(0, len(tokens), stride)]
    return [_mean(tokens[chunk]) for chunk in chunks], [_mean(losses[chunk]) for chunk in chunks]


def thousands(value: float) -> str:
    """A count on an axis: 500, 40k, 1.2M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def series_colour(number: int) -> str:
    """Colour key of the `number`-th line beside the base case, which has the first."""
    return SERIES[1 + number % (len(SERIES) - 1)]


def _finite(curve: tuple[list[float], list[float]]) -> tuple[list[float], list[float]]:
    kept = [(x, y) for x, y in zip(*curve) if math.isfinite(x) and math.isfinite(y)]
    return [x for x, _ in kept], [y for _, y in kept]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
