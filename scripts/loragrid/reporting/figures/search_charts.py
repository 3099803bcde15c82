"""The figures of a search, drawn from plain values."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loragrid.reporting.figures.loss_chart import thousands
from loragrid.reporting.figures.style import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Losses over twice the median are drawn at the upper edge: one bad trial must not flatten the rest.
MOST_TIMES_MEDIAN = 2.0


@dataclass(frozen=True)
class TrialLine:
    """One trial: its measurements, its place on each setting's axis, and how it ended.

    `places` are from 0 to 1, None for a setting that it does not have. `value` is that of the
    objective, of a complete trial.
    """

    number: int
    tokens: list[int]
    losses: list[float]
    value: float | None
    places: list[float | None]
    complete: bool
    best: bool


def loss_history(trials: list[TrialLine]) -> "Figure":
    """Last measured loss of each trial in their order, and the best complete trial so far."""
    figure = new_figure(2.7)
    axes = figure.subplots()
    _limit_losses(axes, [trial.losses[-1] for trial in trials])
    for trial in trials:
        _draw_end(axes, trial.number, trial)
    numbers, bests, best = [], [], float("inf")
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.complete:
            best = min(best, trial.losses[-1])
            numbers.append(trial.number)
            bests.append(best)
    axes.step(numbers, bests, where="post", color=COLOURS["s1"], linewidth=1.2)
    axes.set_xlabel("trial")
    axes.set_title("Validation loss where each trial ended")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="x", visible=False)
    return figure


def trial_loss_curves(trials: list[TrialLine]) -> "Figure":
    """Validation loss against tokens; pruned trials end early, in grey."""
    figure = new_figure(3.0)
    axes = figure.subplots()
    _limit_losses(axes, [loss for trial in trials for loss in trial.losses])
    for trial in _best_on_top(trials):
        colour, width = _style(trial)
        axes.plot(
            trial.tokens,
            trial.losses,
            color=colour,
            linewidth=width,
            alpha=1.0 if trial.best else 0.75,
        )
        _draw_end(axes, trial.tokens[-1], trial)
    axes.set_xlim(left=0)
    axes.set_xlabel("tokens seen in the trial")
    axes.set_title("Validation loss, nats per token")
    axes.xaxis.set_major_formatter(lambda value, _: thousands(value))
    axes.grid(axis="x", visible=False)
    return figure


def value_history(trials: list[TrialLine], name: str, *, higher_is_better: bool) -> "Figure":
    """The value of a task objective of each complete trial in their order, and the best so far."""
    figure = new_figure(2.7)
    axes = figure.subplots()
    best, numbers, bests = None, [], []
    for trial in sorted(trials, key=lambda trial: trial.number):
        if not trial.complete:
            continue
        better = best is None or (trial.value > best if higher_is_better else trial.value < best)
        best = trial.value if better else best
        numbers.append(trial.number)
        bests.append(best)
        colour = _style(trial)[0]
        axes.plot(trial.number, trial.value, marker="o", markersize=7 if trial.best else 5, color=colour, zorder=3)
    axes.step(numbers, bests, where="post", color=COLOURS["s1"], linewidth=1.2)
    axes.set_xlabel("trial")
    axes.set_title(f"{name} at the end of each trial")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="x", visible=False)
    return figure


def parallel_coordinates(trials: list[TrialLine], parameters: list[tuple[str, list[tuple[float, str]]]]) -> "Figure":
    """A line per trial over the settings' axes, with a gap at a setting that it does not have.

    `parameters`: name, and the marks on its axis as (place 0 to 1, text).
    """
    figure = new_figure(3.2)
    axes = figure.subplots()
    for trial in _best_on_top(trials):
        colour, width = _style(trial)
        axes.plot(
            range(len(parameters)),
            [math.nan if place is None else place for place in trial.places],
            color=colour,
            linewidth=width,
            # A place between two gaps has no line.
            marker="." if None in trial.places else None,
            alpha=1.0 if trial.best else 0.6,
        )
    for at, (_, marks) in enumerate(parameters):
        axes.axvline(at, color=COLOURS["muted"], linewidth=0.8)
        for place, text in marks:
            axes.annotate(
                text,
                (at, place),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=8,
                color=COLOURS["ink"],
                verticalalignment="center",
                # Lines pass behind the text.
                bbox={"facecolor": COLOURS["paper"], "alpha": 0.75, "edgecolor": "none", "pad": 0.5},
                zorder=4,
            )
    axes.set_xticks(range(len(parameters)), [name.replace(" ", "\n") for name, _ in parameters])
    axes.set_xlim(-0.15, len(parameters) - 0.45)
    axes.set_yticks([])
    axes.set_ylim(-0.06, 1.06)
    axes.grid(visible=False)
    axes.set_title("Settings of every trial")
    return figure


def importance_bars(shares: list[tuple[str, float]]) -> "Figure":
    """Bars, largest first.

    `shares`: setting and the share of the spread of results that it explains.
    """
    figure = new_figure(0.6 + 0.3 * len(shares))
    axes = figure.subplots()
    names, values = zip(*reversed(shares))
    axes.barh(range(len(values)), values, height=0.6, color=COLOURS["s0"])
    axes.set_yticks(range(len(names)), names, color=COLOURS["ink"])
    for at, value in enumerate(values):
        axes.annotate(
            f"{value:.0%}",
            (value, at),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=9,
            verticalalignment="center",
            color=COLOURS["ink"],
        )
    axes.set_xlim(0, max(values) * 1.15 or 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title("Share of the results’ spread explained")
    axes.grid(axis="y", visible=False)
    return figure


def _best_on_top(trials: list[TrialLine]) -> list[TrialLine]:
    """Trials in drawing order: pruned, complete, best."""
    return sorted(trials, key=lambda trial: (trial.best, trial.complete))


def _style(trial: TrialLine) -> tuple[str, float]:
    """Colour and line width of a trial."""
    if trial.best:
        return COLOURS["s1"], 2.2
    return (COLOURS["s0"], 1.2) if trial.complete else (COLOURS["base"], 0.9)


def _draw_end(axes: "Axes", x: float, trial: TrialLine) -> None:
    """A dot where a trial ended, filled if complete; a loss above the figure is at its upper edge."""
    colour = _style(trial)[0]
    axes.plot(
        x,
        min(trial.losses[-1], axes.get_ylim()[1]),
        marker="o",
        markersize=7 if trial.best else 5,
        color=colour,
        markerfacecolor=colour if trial.complete else COLOURS["paper"],
        # A dot on the edge must not be cut in half.
        clip_on=False,
        zorder=3,
    )


def _limit_losses(axes: "Axes", losses: list[float]) -> None:
    ordered = sorted(losses)
    highest = min(ordered[-1], MOST_TIMES_MEDIAN * ordered[len(ordered) // 2])
    # Equal losses would leave an axis without height.
    room = max(highest - ordered[0], 1e-6)
    axes.set_ylim(ordered[0] - 0.08 * room, highest + 0.08 * room)
