"""The figures of a study: picks their data from records and tables for the chart modules."""

from dataclasses import replace
from pathlib import Path
from textwrap import fill, shorten
from typing import Any

from loragrid.comparing.contrasts import ADAPTERS
from loragrid.comparing.designs.axis_pairs import size_on
from loragrid.comparing.diagnosing.run_evidence import LossPath, read_loss_path
from loragrid.formatting import plain_name, visible
from loragrid.records.outcomes import Outcome
from loragrid.reporting.figures import charts
from loragrid.reporting.figures.charts import HOLLOW, VERDICT_MARKS, Estimate, RunChange
from loragrid.reporting.figures.loss_chart import loss_curves, seeds_curve, series_colour
from loragrid.reporting.figures.style import SERIES, matplotlib_style
from loragrid.reporting.figures.svg import PageFigures
from loragrid.reporting.figures.trade_off_chart import trade_off
from loragrid.reporting.page import Material
from loragrid.setting_texts import axis_name, axis_value
from loragrid.study.cell_pairs import BASE_CASE, study_axes, value_on
from loragrid.study.grid import ARMS
from loragrid.study.run_names import value_text

MOST_ROWS = 24  # of the figure of differences; the tables hold all runs
LONGEST_LABEL = 24  # characters of a line of a label
LONGEST_VALUE = 40  # characters of a value in a figure
MOST_CURVES = 11  # the base case, and five colours as whole and as dashed lines


def draw_study_figures(material: Material, folder: Path) -> PageFigures:
    """All figures that the study's results allow, saved in `folder`."""
    figures = PageFigures(folder)
    with matplotlib_style():
        draw_differences(material, figures)
        draw_trade_off(material, figures)
        for axis in study_axes(material.study):
            draw_losses(material, figures, axis)
        draw_lengths(material, figures)
    return figures


def draw_differences(material: Material, figures: PageFigures) -> None:
    """Gain and retention, a row per run; of many runs those that gained most."""
    compared = material.compared
    changes = [_run_change(material, row) for row in compared.summary["trade_offs"]]
    if not changes:
        return
    note = ""
    if len(changes) > MOST_ROWS:
        note = f"the {MOST_ROWS} largest gains of {len(changes)}"
        changes = sorted(changes, key=lambda change: -change.gain.value)[:MOST_ROWS]
    share = compared.unit == "share"
    target, unit = plain_name(compared.target), ", points" if share else ""
    titles, and_kept = (f"Learned{unit}", "Kept, points"), " and kept on the retention tasks"
    if not any(change.kept for change in changes):
        titles, and_kept = (f"Gain on {target}{unit}",), ""
    figure = charts.differences(changes, titles, share=share, note=note)
    description = f"What each run learned on {target}{and_kept}, as differences from its untrained base"
    figures.add("differences", figure, description)


def draw_trade_off(material: Material, figures: PageFigures) -> None:
    """Learning against forgetting."""
    summary = material.compared.summary
    measured = [row for row in summary["trade_offs"] if row["kept"] is not None]
    changes = [_run_change(material, row) for row in measured]
    if len(changes) < 2:
        return
    share, margin = material.compared.unit == "share", summary["terms"]["retention_margin"]
    figure = trade_off(changes, share=share, margin=margin)
    description = "Gain on the target against change in retention, one point per run"
    figures.add("trade_off", figure, description)


def _run_change(material: Material, row: dict[str, Any]) -> RunChange:
    """A row of the trade-offs as a chart takes it."""
    kept = None
    if row["kept"] is not None:
        kept_mark = VERDICT_MARKS.get(row["kept_verdict"], HOLLOW)
        kept = Estimate(row["kept"], row["kept_low"], row["kept_high"], kept_mark)
    gain = Estimate(row["gain"], row["gain_low"], row["gain_high"], VERDICT_MARKS.get(row["gain_verdict"], HOLLOW))
    label = material.compared.setting_labels[row["run"]]
    seeds = () if row["level"] == ADAPTERS else _seed_gains(material, row)
    return RunChange(label, gain, kept, seeds, row["pareto"], one_seed=row["level"] == ADAPTERS)


def _seed_gains(material: Material, row: dict[str, Any]) -> tuple[float, ...]:
    """What each seed of a setting gained on the target; a run without a score is left out."""
    compared = material.compared
    scores = material.scores[material.scores["task"] == compared.target].set_index("subject")["value"]
    if row["base"] not in scores.index:
        return ()
    sign = 1 if compared.higher_is_better else -1
    return tuple(sign * float(scores[run] - scores[row["base"]]) for run in row["runs"].split() if run in scores.index)


def runs_on_axis(material: Material, axis: str) -> list[Outcome]:
    """The base case and the runs with its seed that differ on this axis only, in its order."""
    seed = material.study.base_case.seed
    runs = [
        outcome
        for outcome in material.outcomes
        if outcome.kind == "run" and outcome.cell.settings.seed == seed and set(outcome.cell.arm) <= {axis}
    ]
    # Values without a size, such as models and arms, stay in the study file's order.
    return sorted(runs, key=lambda outcome: size_on(axis, _value(material, axis, outcome), material.study))


def _value(material: Material, axis: str, outcome: Outcome) -> Any:
    if axis in ARMS:
        return outcome.cell.arm.get(axis, BASE_CASE)
    return value_on(outcome.cell, axis, material.study.yaml["base_case"])


def value_sizes(material: Material, axis: str, runs: list[Outcome]) -> list[float | None]:
    """The sizes of the runs' values on an axis, None for names."""
    found = [size_on(axis, _value(material, axis, outcome), material.study) for outcome in runs]
    return [size if kind == 0 else None for kind, size in found]


def seeds_of(material: Material, outcome: Outcome) -> list[Outcome]:
    """The trained runs of an outcome's setting, itself first."""
    same = [one for one in material.outcomes if one.kind == "run" and one.cell.arm == outcome.cell.arm and one.record]
    return sorted(same, key=lambda one: one.subject != outcome.subject)


def short_value(material: Material, axis: str, outcome: Outcome) -> str:
    """The run's value on an axis, short."""
    return shorten(
        visible(axis_value(axis, value_text(_value(material, axis, outcome)))), LONGEST_VALUE, placeholder="…"
    )


def in_two_lines(name: str) -> str:
    """A long name of a line, which would take the room of the plot."""
    return fill(name, LONGEST_LABEL, max_lines=2, placeholder="…")


def draw_losses(material: Material, figures: PageFigures, axis: str) -> None:
    """Loss curves of the settings on one axis: means over their seeds, with the range of the seeds."""
    runs = [outcome for outcome in runs_on_axis(material, axis) if outcome.record]
    if len(runs) < 2:
        return
    curves, others = [], 0
    for outcome in runs[:MOST_CURVES]:
        colour, dashed = "s0", False  # the base case's in all figures
        if outcome.cell.departs:
            colour, dashed = series_colour(others), others >= len(SERIES) - 1
            others += 1
        paths = [path for path in (_loss_path(material, one) for one in seeds_of(material, outcome)) if path]
        if paths:
            name = in_two_lines(short_value(material, axis, outcome))
            curves.append(replace(seeds_curve(name, colour, paths), dashed=dashed))
    if any(curve.heldout[0] for curve in curves):
        values = ", ".join(" ".join(curve.label.split()) for curve in curves)
        description = f"Loss against training tokens by {axis_name(axis)}: {values}"
        figures.add(f"loss_{axis}", loss_curves(curves), description)


def _loss_path(material: Material, outcome: Outcome) -> LossPath | None:
    return read_loss_path(material.results / "train" / outcome.subject / outcome.record.losses_file)


def draw_lengths(material: Material, figures: PageFigures) -> None:
    """Length histograms of the data cards.

    Data sets with the same histogram share the first one's figure.
    """
    drawn: list[Any] = []
    for data, card in material.cards.items():
        histogram = card.get("length_histogram") or {}
        edges, counts = histogram.get("edges"), histogram.get("counts")
        if histogram in drawn or not edges or not counts or len(edges) != len(counts) + 1:
            continue
        drawn.append(histogram)
        figure = charts.length_histogram(edges, counts, card["max_length_tokens"])
        description = f"Length of the rows of {visible(data)} in tokens"
        figures.add(f"lengths_{safe_id(data)}", figure, description)


def safe_id(name: str) -> str:
    """A name as part of an element's id."""
    return "".join(ch if ch.isalnum() else "_" for ch in name)
