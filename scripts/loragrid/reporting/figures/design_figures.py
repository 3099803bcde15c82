"""The figures of two axes together, of data sizes, and of scores along runs."""

from typing import Any

from loragrid.comparing.contrasts import ADAPTERS, SETTING
from loragrid.formatting import plain_name, visible
from loragrid.reporting.figures.charts import FULL, HALF, Estimate
from loragrid.reporting.figures.curve_charts import ChangeLine, RowsCurve, over_rows, over_tokens
from loragrid.reporting.figures.heat_map import HeatMap, heat_map
from loragrid.reporting.figures.loss_chart import series_colour
from loragrid.reporting.figures.study_figures import in_two_lines
from loragrid.reporting.figures.style import matplotlib_style
from loragrid.reporting.figures.svg import PageFigures
from loragrid.reporting.page import Material
from loragrid.reporting.sentences.verdicts import task_name
from loragrid.setting_texts import axis_name, axis_value
from loragrid.study.sections import HELDOUT_LOSS

MOST_LINES = 6  # as many as there are colours
# How far a row's best is set apart from the others → whether that is proved for settings.
APART = {SETTING: True, ADAPTERS: False, None: None}


def draw_design_figures(material: Material, figures: PageFigures) -> None:
    """Add to `figures` what the study's design and its scoring allow."""
    summary = material.compared.summary
    with matplotlib_style():
        for number, pair in enumerate(summary["interactions"]):
            for task in pair["tasks"]:
                draw_heat_map(material, figures, (heat_name(number, task), pair, task))
        for number, curve in enumerate(summary["learning_curves"]):
            draw_rows_curve(material, figures, number, curve)
        draw_along(material, figures)


def heat_name(number: int, task: str) -> str:
    """The name of a heat map's figure."""
    return f"heat_{number}_{''.join(ch if ch.isalnum() else '_' for ch in task)}"


def draw_heat_map(material: Material, figures: PageFigures, what: tuple[str, dict[str, Any], str]) -> None:
    """The scores of one task at every pair of values; `what`: the figure's name, the pair of axes, the task."""
    name, pair, task = what
    scores, unit = pair["tasks"][task], material.compared.units[task]
    higher_is_better = material.compared.is_higher_better(task)
    rows = [visible(axis_value(pair["rows_axis"], value), 24) for value in pair["rows"]]
    columns = [visible(axis_value(pair["columns_axis"], value), 24) for value in pair["columns"]]
    base = None
    if pair["base"][0] in pair["rows"] and pair["base"][1] in pair["columns"]:
        base = pair["rows"].index(pair["base"][0]), pair["columns"].index(pair["base"][1])
    row_axis, column_axis = axis_name(pair["rows_axis"]), axis_name(pair["columns_axis"])
    found = HeatMap(
        rows,
        columns,
        scores["scores"],
        scores["best"],
        [APART[level] for level in scores["best_apart"]],
        base,
        row_axis,
        column_axis,
        unit,
        higher_is_better,
    )
    title = task_name(task).capitalize()
    if not higher_is_better:
        title += " (lower is better)"
    figures.add(name, heat_map(found, title), f"{task_name(task)} by {row_axis} (rows) and {column_axis} (columns)")


def draw_rows_curve(material: Material, figures: PageFigures, number: int, curve: dict[str, Any]) -> None:
    """Held-out loss and target score over training rows."""
    means = [None] * len(curve["rows"])
    if HELDOUT_LOSS in curve["tasks"]:
        means = _estimates(curve, HELDOUT_LOSS)
    if curve["losses"]:
        law = curve["fit"].get("curve")
        runs = [(rows, loss) for rows, loss in curve["losses"]]
        # The law goes through the losses that the runs recorded, so its figure shows those.
        shown = RowsCurve(curve["rows"], [None] * len(means) if law else means, "s0", runs, law)
        figure = over_rows(shown, "Held-out loss, nats per token", share=False)
        figures.add(f"rows_{number}_loss", figure, "Held-out loss over the number of training rows")
    target = material.compared.target
    if target in curve["tasks"] and target != HELDOUT_LOSS:
        share = material.compared.unit == "share"
        shown = RowsCurve(curve["rows"], _estimates(curve, target), "s1")
        figure = over_rows(shown, plain_name(target).capitalize(), share=share)
        figures.add(f"rows_{number}_target", figure, f"{plain_name(target)} over the number of training rows")


def _estimates(curve: dict[str, Any], task: str) -> list[Estimate | None]:
    """The curve's points on a task, half full where there is one seed."""
    return [
        Estimate(point["value"], point["low"], point["high"], FULL if seeds > 1 else HALF) if point else None
        for point, seeds in zip(curve["tasks"][task], curve["seeds"])
    ]


def draw_along(material: Material, figures: PageFigures) -> None:
    """Changes from the base over tokens seen: the target, and mean retention."""
    compared = material.compared
    rows = compared.summary["along"][:MOST_LINES]
    titles = {"target": plain_name(compared.target or ""), "kept": "retention, mean over tasks"}
    share = {"target": compared.unit == "share", "kept": True}
    for part, title in titles.items():
        lines = [line for number, row in enumerate(rows) if (line := _line(material, number, row, part))]
        if not lines:
            continue
        points = ", points" if share[part] else ""
        margin = compared.summary["terms"]["retention_margin"] if part == "kept" else None
        figure = over_tokens(lines, f"Change in {title}{points}", share=share[part], margin=margin)
        figures.add(f"along_{part}", figure, f"Change in {title} from the untrained base over tokens seen in training")


def _line(material: Material, number: int, row: dict[str, Any], part: str) -> ChangeLine | None:
    moments = [moment for moment in row["moments"] if moment.get(part)]
    if not moments:
        return None
    is_case = row["run"] in material.compared.base_case_runs
    colour = "s0" if is_case else series_colour(max(0, number - 1))
    start = Estimate(0.0, 0.0, 0.0)
    return ChangeLine(
        in_two_lines(material.compared.setting_labels[row["run"]]),
        colour,
        [0.0, *(moment["tokens"] for moment in moments)],
        [start, *(Estimate(*moment[part]) for moment in moments)],
        one_seed=row["seeds"] == 1,
    )
