"""The figures of scores over the values of an axis: means over seeds, single seeds, untrained bases."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.formatting import plain_name
from loragrid.records.outcomes import Outcome
from loragrid.reporting.figures import charts
from loragrid.reporting.figures.charts import FULL, HALF, HOLLOW, Estimate, ScoreSeries
from loragrid.reporting.figures.study_figures import runs_on_axis, short_value, value_sizes
from loragrid.reporting.figures.style import matplotlib_style
from loragrid.reporting.figures.svg import PageFigures
from loragrid.reporting.figures.value_axis import value_axis
from loragrid.reporting.page import Material
from loragrid.setting_texts import axis_name
from loragrid.study.cell_pairs import study_axes


@dataclass(frozen=True)
class ShownScore:
    """What a line of the figure shows: the name of the measure, its tasks, and its name and colour in the figure."""

    measure: str
    tasks: list[str]
    name: str
    colour: str


def draw_score_figures(material: Material, figures: PageFigures) -> None:
    """Add a figure of scores per axis to `figures`."""
    with matplotlib_style():
        for axis in study_axes(material.study):
            draw_scores(material, figures, axis)


def draw_scores(material: Material, figures: PageFigures, axis: str) -> None:
    """Target score and mean retention over the values of one axis, beside the untrained base."""
    runs = [outcome for outcome in runs_on_axis(material, axis) if outcome.status == "scored"]
    target = material.compared.target
    if len(runs) < 2 or target is None:
        return
    tasks, share = material.compared.summary["tasks"], material.compared.unit == "share"
    shown = [ShownScore(target, [target], plain_name(target), "s0")]
    retention = [name for name, task in tasks.items() if task["group"] == "retention" and task["unit"] == "share"]
    # One scale for both: a target in another unit has the figure to itself.
    if share and retention:
        shown.append(ShownScore(POOLED_RETENTION, retention, "retention", "s1"))
    series = [line for one in shown for line in _with_untrained(material, runs, one)]
    values = [short_value(material, axis, outcome) for outcome in runs]
    base_cases = [index for index, outcome in enumerate(runs) if not outcome.cell.departs]
    base_case = base_cases[0] if base_cases else None
    title = "Scores" if share else plain_name(tasks[target]["metric"]).capitalize()
    along = value_axis(values, value_sizes(material, axis, runs), axis_name(axis), base_case)
    figure = charts.scores_by_value(series, along, share=share, title=title)
    description = f"Scores by {axis_name(axis)}, with intervals, beside the base"
    figures.add(f"scores_{axis}", figure, description)


def _with_untrained(material: Material, runs: list[Outcome], shown: ShownScore) -> list[ScoreSeries]:
    """Two series: the settings' scores, and those of their untrained bases."""
    table = material.scores.set_index(["subject", "task"])
    means = {run: setting for setting in material.compared.summary["setting_scores"] for run in setting["runs"]}
    trained, single = [], []
    for outcome in runs:
        setting: dict[str, Any] = means.get(outcome.subject, {"runs": [], "scores": {}})
        mean = setting["scores"].get(shown.measure)
        seeds = [mean_score(table, run, shown.tasks, HALF) for run in setting["runs"]]
        single.append([score.value for score in seeds if score])
        if mean:
            trained.append(Estimate(mean["value"], mean["low"], mean["high"], FULL))
        else:
            trained.append(mean_score(table, outcome.subject, shown.tasks, HALF))
    untrained = [mean_score(table, outcome.base, shown.tasks, HOLLOW) for outcome in runs]
    return [
        ScoreSeries(shown.name, shown.colour, trained, single=single),
        ScoreSeries(f"base, {shown.name}", shown.colour, untrained, untrained=True),
    ]


def mean_score(table: pd.DataFrame, subject: str, tasks: list[str], mark: str) -> Estimate | None:
    """A subject's mean score over tasks with its interval over other items; None if one is missing.

    `table`: scores by (subject, task).
    """
    rows = [table.loc[(subject, task)] for task in tasks if (subject, task) in table.index]
    if len(rows) < len(tasks):
        return None
    if len(rows) == 1:
        return Estimate(rows[0]["value"], rows[0]["low"], rows[0]["high"], mark)
    # Tasks hold different items, so their errors are independent and add in squares.
    half = math.sqrt(sum(((row["high"] - row["low"]) / 2) ** 2 for row in rows)) / len(rows)
    mean = float(np.mean([row["value"] for row in rows]))
    return Estimate(mean, mean - half, mean + half, mark)
