"""The figures of the study's search, picked from its result and drawn by `search_charts`."""

from collections.abc import Mapping
from typing import Any

from loragrid.reporting.figures import search_charts
from loragrid.reporting.figures.search_charts import TrialLine
from loragrid.reporting.figures.style import matplotlib_style
from loragrid.reporting.figures.svg import PageFigures
from loragrid.reporting.page import Material
from loragrid.reporting.sentences.search import objective_name, setting_value
from loragrid.setting_texts import axis_name
from loragrid.study.search.search_space import coordinate, ordered_choices
from loragrid.study.search.winner import read_search

LONGEST_MARK = 10  # characters between two of seven axes


def draw_search_figures(material: Material, figures: PageFigures) -> None:
    """Add history, learning curves, parallel coordinates and importance, if there is data for them."""
    found = read_search(material.study, material.results)
    trials = _trial_lines(found) if found else []
    if not trials:
        return
    with matplotlib_style():
        if found["objective"]["task"] is None:
            history = search_charts.loss_history(trials)
            figures.add(
                "tune_history", history, "Validation loss where each trial ended, in order, and the lowest so far"
            )
        elif any(trial.complete for trial in trials):
            name = objective_name(found)
            higher = found["objective"]["higher_is_better"]
            history = search_charts.value_history(trials, name.capitalize(), higher_is_better=higher)
            figures.add("tune_history", history, f"{name} at the end of each trial, in order, and the best so far")
        figures.add(
            "tune_curves",
            search_charts.trial_loss_curves(trials),
            "Validation loss of each trial against tokens",
        )
        axes = [
            (axis_name(name), _axis_marks(name, values)) for name, values in found["settings"]["parameters"].items()
        ]
        parallel = search_charts.parallel_coordinates(trials, axes)
        figures.add("tune_parallel", parallel, "The settings of each trial, a line per trial")
        shares = found["importance"]["shares"]
        if shares:
            bars = [(axis_name(name), share) for name, share in shares.items()]
            figure = search_charts.importance_bars(bars)
            figures.add("tune_importance", figure, "How much each setting explains of the loss")


def _trial_lines(found: Mapping[str, Any]) -> list[TrialLine]:
    """The trials that were measured at least once."""
    best = found["best"]["slot"] if found["best"] else None
    space = found["settings"]["parameters"]
    return [
        TrialLine(
            number=row["slot"],
            # A measurement: part of the budget, updates, tokens, validation loss.
            tokens=[tokens for _, _, tokens, _ in row["curve"]],
            losses=[loss for _, _, _, loss in row["curve"]],
            value=row["value"],
            places=[_place(values, row["point"].get(name)) for name, values in space.items()],
            complete=row["outcome"] == "complete",
            best=row["slot"] == best,
        )
        for row in found["rows"]
        if row["curve"]
    ]


def _place(values: Mapping[str, Any], value: Any) -> float | None:
    return None if value is None else coordinate(values, value)


def _axis_marks(name: str, values: Mapping[str, Any]) -> list[tuple[float, str]]:
    """The marks on a setting's axis: its choices, or the ends of its range."""
    shown = ordered_choices(values) if "choices" in values else [values["low"], values["high"]]
    return [(coordinate(values, value), _short(setting_value(name, value))) for value in shown]


def _short(text: str) -> str:
    """A mark that ends before the next axis."""
    text = text.removesuffix(" of the updates")
    return text if len(text) <= LONGEST_MARK else f"{text[: LONGEST_MARK - 1]}…"
