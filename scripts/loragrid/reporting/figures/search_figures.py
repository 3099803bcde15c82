"""The figures of the study's search, picked from its result and drawn by `search_charts`."""

from collections.abc import Mapping
from typing import Any

from loragrid.reporting.figures import search_charts
from loragrid.reporting.figures.search_charts import TrialLine
from loragrid.reporting.figures.style import matplotlib_style
from loragrid.reporting.figures.svg import PageFigures
from loragrid.reporting.page import Material
from loragrid.reporting.sentences.search import parameter_name, parameter_value
from loragrid.study.search_space import coordinate
from loragrid.study.winner import read_search


def draw_search_figures(material: Material, figures: PageFigures) -> None:
    """Add history, learning curves, parallel coordinates and importance, if there is data for them."""
    found = read_search(material.study, material.results)
    trials = _trial_lines(found) if found else []
    if not trials:
        return
    with matplotlib_style():
        history = search_charts.loss_history(trials)
        figures.add("tune_history", history, "Held-out loss at the end of each trial, in order")
        figures.add(
            "tune_curves",
            search_charts.trial_loss_curves(trials),
            "Held-out loss of each trial against tokens",
        )
        axes = [
            (parameter_name(name).replace("accumulation", "accum."), _axis_marks(values))
            for name, values in found["settings"]["parameters"].items()
        ]
        parallel = search_charts.parallel_coordinates(trials, axes)
        figures.add("tune_parallel", parallel, "The settings of each trial, a line per trial")
        shares = found["importance"]["shares"]
        if shares:
            bars = [(parameter_name(name), share) for name, share in shares.items()]
            figure = search_charts.importance_bars(bars)
            figures.add("tune_importance", figure, "How much each setting explains of the loss")


def _trial_lines(found: Mapping[str, Any]) -> list[TrialLine]:
    """The trials that were measured at least once."""
    best = found["best"]["slot"] if found["best"] else None
    space = found["settings"]["parameters"]
    return [
        TrialLine(
            number=row["slot"],
            # A measurement: part of the budget, updates, tokens, held-out loss.
            tokens=[tokens for _, _, tokens, _ in row["curve"]],
            losses=[loss for _, _, _, loss in row["curve"]],
            places=[coordinate(values, row["point"][name]) for name, values in space.items()],
            complete=row["outcome"] == "complete",
            best=row["slot"] == best,
        )
        for row in found["rows"]
        if row["curve"]
    ]


def _axis_marks(values: Mapping[str, Any]) -> list[tuple[float, str]]:
    """The marks on a parameter's axis: its choices, or the ends of its range."""
    shown = sorted(values["choices"]) if "choices" in values else [values["low"], values["high"]]
    return [(coordinate(values, value), parameter_value(value)) for value in shown]
