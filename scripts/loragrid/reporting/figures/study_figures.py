"""Which pictures a study gets: data picked from records and tables, drawn by `charts`, saved and made ready for the page."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loragrid.comparing.axis_effects import COMPARED_AXES, axis_text
from loragrid.comparing.run_evidence import read_loss_path
from loragrid.formatting import AXIS_NAMES, plain_name, setting, visible
from loragrid.records.outcomes import Outcome
from loragrid.reporting.figures import charts
from loragrid.reporting.figures.charts import Point
from loragrid.reporting.figures.loss_chart import loss_curves, path_curve, series_colour
from loragrid.reporting.figures.svg import Styles, drawing, inline, save
from loragrid.reporting.page import Material

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 24  # of the picture of differences; the tables hold all runs
MOST_CURVES = 6


class Pictures:
    """Draws into a folder and collects what the page needs: name → {"svg", "alt", "file"}."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.styles = folder, Styles()
        self.found: dict[str, dict[str, str]] = {}

    def add(self, name: str, figure: "Figure", alt: str) -> None:
        """Save a figure under `name` and keep it for the page."""
        document = save(figure, self.folder, name)
        self.found[name] = {"svg": inline(document, name=name, title=alt, styles=self.styles), "alt": alt}


def draw_all(material: Material, folder: Path) -> Pictures:
    """All pictures that the material allows."""
    pictures = Pictures(folder)
    with drawing():
        draw_differences(material, pictures)
        draw_trade_off(material, pictures)
        for axis in COMPARED_AXES:
            draw_losses(material, pictures, axis)
            draw_scores(material, pictures, axis)
        drawn: list[Any] = []
        for data, card in material.cards.items():
            if card.get("length_histogram") not in drawn:
                drawn.append(card.get("length_histogram"))
                draw_lengths(data, card, pictures)
    return pictures


def draw_differences(material: Material, pictures: Pictures) -> None:
    """Learned and kept, a row per run."""
    trades = material.compared.summary["trade_offs"]
    if not trades:
        return
    note = f"the {MOST_ROWS} largest gains of {len(trades)}" if len(trades) > MOST_ROWS else ""
    trades = trades if len(trades) <= MOST_ROWS else sorted(trades, key=lambda row: -row["gain"])[:MOST_ROWS]
    rows = []
    for row in trades:
        gain = Point("", row["gain"], row["gain_low"], row["gain_high"], row["gain_verdict"] != "can't tell")
        kept = None
        if row["kept"] is not None:
            clear = row["kept_low"] > 0 or row["kept_high"] < 0
            kept = Point("", row["kept"], row["kept_low"], row["kept_high"], clear)
        rows.append((material.compared.setting_labels[row["run"]], gain, kept))
    share = material.compared.unit == "share"
    titles = ("Learned, points" if share else "Learned", "Kept, points")
    target = plain_name(material.compared.target)
    alt = f"What each run learned on {target} and kept on the retention tasks, as differences from its base"
    pictures.add("differences", charts.differences(rows, titles, share=share, note=note), alt)


def draw_trade_off(material: Material, pictures: Pictures) -> None:
    """Learning against forgetting."""
    points = [
        (
            material.compared.setting_labels[row["run"]],
            Point("", row["gain"], row["gain_low"], row["gain_high"]),
            Point("", row["kept"], row["kept_low"], row["kept_high"]),
            row["pareto"],
        )
        for row in material.compared.summary["trade_offs"]
        if row["kept"] is not None
    ]
    if len(points) < 2:
        return
    margin = material.compared.summary["terms"]["retention_margin"]
    figure = charts.trade_off(points, share=material.compared.unit == "share", margin=margin)
    pictures.add("trade_off", figure, "Gain on the target against change in retention, one point per run")


def on_axis(material: Material, axis: str) -> list[Outcome]:
    """The base case and the runs that leave it on this axis only, in the order of the axis; one seed's worth of them."""
    seed = material.study.base_case.seed
    runs = [o for o in material.outcomes if o.cell and not set(o.cell.departs) - {axis} and o.cell.seed == seed]

    def order(outcome: Outcome) -> Any:
        value = getattr(outcome.cell, axis)
        return (value[0] * value[1], value) if axis == "batch" else value if axis != "model" else 0

    return sorted(runs, key=order)


def value_text(axis: str, outcome: Outcome) -> str:
    """The run's value on an axis, short."""
    value = getattr(outcome.cell, axis)
    return visible(setting(value) if axis == "learning_rate" else axis_text(axis, value), 24)


def draw_losses(material: Material, pictures: Pictures, axis: str) -> None:
    """Loss curves of one axis."""
    runs = [o for o in on_axis(material, axis) if o.record]
    if len(runs) < 2:
        return
    curves, others = [], 0
    for outcome in runs[:MOST_CURVES]:
        colour = "s0"
        if outcome.cell.departs:
            colour, others = series_colour(others), others + 1
        path = read_loss_path(material.results / "train" / outcome.subject / outcome.record.losses_file)
        if path is not None:
            curves.append(path_curve(value_text(axis, outcome), colour, path))
    if any(curve.heldout[0] for curve in curves):
        alt = f"Loss against training tokens by {AXIS_NAMES[axis]}: {', '.join(curve.label for curve in curves)}"
        pictures.add(f"loss_{axis}", loss_curves(curves), alt)


def draw_scores(material: Material, pictures: Pictures, axis: str) -> None:
    """Target and mean retention over the values of one axis, with the untrained base beside each."""
    runs = [o for o in on_axis(material, axis) if o.status == "scored"]
    if len(runs) < 2 or material.compared.target is None:
        return
    tasks = material.compared.summary["tasks"]
    share = material.compared.unit == "share"
    retention = [name for name, task in tasks.items() if task["group"] == "retention" and task["unit"] == "share"]
    table = material.scores.set_index(["subject", "task"])
    target, name = [material.compared.target], plain_name(material.compared.target)
    series = [
        (name, "s0", [score_point(table, o.subject, target) for o in runs]),
        (f"untrained, {name}", "s0", [score_point(table, o.base, target) for o in runs]),
    ]
    if share and retention:
        series += [
            ("retention", "s1", [score_point(table, o.subject, retention) for o in runs]),
            ("untrained, retention", "s1", [score_point(table, o.base, retention) for o in runs]),
        ]
    marked = next((i for i, o in enumerate(runs) if not o.cell.departs), -1)
    title = "Scores" if share else plain_name(tasks[material.compared.target]["metric"]).capitalize()
    figure = charts.scores_by_value(series, [value_text(axis, o) for o in runs], marked, share=share, title=title)
    pictures.add(f"scores_{axis}", figure, f"Scores by {AXIS_NAMES[axis]}, with intervals, beside the untrained base")


def score_point(table: pd.DataFrame, subject: str, tasks: list[str]) -> Point | None:
    """A subject's score with its interval; over several tasks their mean, the errors of which add in squares."""
    rows = [table.loc[(subject, task)] for task in tasks if (subject, task) in table.index]
    if len(rows) < len(tasks):
        return None
    if len(rows) == 1:
        return Point("", rows[0]["value"], rows[0]["low"], rows[0]["high"])
    half = math.sqrt(sum(((row["high"] - row["low"]) / 2) ** 2 for row in rows)) / len(rows)
    mean = float(np.mean([row["value"] for row in rows]))
    return Point("", mean, mean - half, mean + half)


def draw_lengths(data: str, card: dict[str, Any], pictures: Pictures) -> None:
    """Length histogram of one data card."""
    histogram = card.get("length_histogram") or {}
    edges, counts = histogram.get("edges"), histogram.get("counts")
    if edges and counts and len(edges) == len(counts) + 1:
        figure = charts.histogram(edges, counts, card["max_length_tokens"])
        pictures.add(f"lengths_{safe_id(data)}", figure, f"Length of the rows of {visible(data)} in tokens")


def safe_id(name: str) -> str:
    """A name as part of an element's id."""
    return "".join(ch if ch.isalnum() else "_" for ch in name)
