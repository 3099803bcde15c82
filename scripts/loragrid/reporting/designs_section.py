"""The page's parts on two axes together, on data sizes, and on scores along runs."""

from typing import Any

from loragrid.comparing.contrasts import ADAPTERS
from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.formatting import listed, visible
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.figures.design_figures import MOST_LINES, heat_name
from loragrid.reporting.page import Material, departure_text
from loragrid.reporting.sentences.along import along_sentence
from loragrid.reporting.sentences.findings import start
from loragrid.reporting.sentences.interactions import correction_text, interaction_finding
from loragrid.reporting.sentences.learning_curves import curve_finding, seeds_text, tokens_text
from loragrid.setting_texts import axis_name


def interaction_parts(material: Material) -> list[dict[str, Any]]:
    """Per pair of axes its title, its sentences, and the names of its figures, single retention tasks apart."""
    compared = material.compared
    tasks, parts = compared.summary["tasks"], []
    for number, pair in enumerate(compared.summary["interactions"]):
        names = {task: heat_name(number, task) for task in pair["tasks"]}
        # Beside the targets the mean over the retention tasks, which counts more than each of them.
        targets = [task for task in names if task == POOLED_RETENTION or tasks[task]["group"] == "target"]
        others = [task for task in names if task not in targets]
        if POOLED_RETENTION in names and len(others) == 1:
            others = []  # the mean over one task is that task
        parts.append(
            {
                "title": start(f"{axis_name(pair['columns_axis'])} and {axis_name(pair['rows_axis'])}"),
                "rows_axis": axis_name(pair["rows_axis"]),
                "findings": interaction_finding(pair, compared),
                "families": correction_text(pair),
                "averaged": pair["places"] > 1,
                "one_seed": pair["seeds"] == 1,
                "targets": [names[task] for task in targets],
                "others": [names[task] for task in others],
            }
        )
    return parts


def size_parts(material: Material) -> list[dict[str, Any]]:
    """Per series of data sizes its sentences and the names of its figures."""
    parts = []
    for number, curve in enumerate(material.compared.summary["learning_curves"]):
        departs = listed([departure_text(axis, value) for axis, value in curve["departs"].items()])
        parts.append(
            {
                "title": "Training rows" + (f" ({departs})" if departs else ""),
                "finding": curve_finding(curve),
                "tokens": tokens_text(curve),
                "count": seeds_text(curve),
                "fitted": curve["fit"]["code"] == "fitted",
                "figures": [f"rows_{number}_loss", f"rows_{number}_target"],
            }
        )
    return parts


def along_part(material: Material) -> dict[str, Any] | None:
    """What happened along the runs that were scored at several shares; None if none was."""
    compared = material.compared
    rows = compared.summary["along"]
    if not rows:
        return None
    return {
        "lines": [(_along_label(row, compared), along_sentence(row, compared)) for row in rows],
        "seeds": min(row["seeds"] for row in rows),
        "marks": " Half full: one seed." if any(row["seeds"] == 1 for row in rows[:MOST_LINES]) else "",
        "not_drawn": max(0, len(rows) - MOST_LINES),
    }


def _along_label(row: dict[str, Any], compared: ComparedStudy) -> str:
    """The setting; with one seed the sentence is about its only run."""
    one_seed = " (one seed)" if row["level"] == ADAPTERS else ""
    return visible(compared.setting_labels[row["run"]], 80) + one_seed
