"""The page's tables of comparisons: with the base case, with the bases, and by precision."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from loragrid.comparing.item_tables import BITS_PER_BYTE
from loragrid.formatting import between, change_beside, decimals, p_value, score, visible
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.page import Material
from loragrid.reporting.sentences.findings import start
from loragrid.reporting.sentences.limits import reason_text
from loragrid.reporting.sentences.value_findings import axis_finding
from loragrid.reporting.sentences.verdicts import (
    FAMILY_HEADINGS,
    covers_text,
    items_text,
    open_text,
    skew_text,
    task_name,
)
from loragrid.setting_texts import axis_name, axis_value
from loragrid.study.cell_pairs import study_axes
from loragrid.study.run_names import value_text


def axis_table(material: Material, axis: str) -> dict[str, Any]:
    """The table under an axis's figures: every value on every measure against the base case."""
    rows = material.compared.axes
    rows = rows[rows["axis"] == axis]
    return comparison_table(rows, material.compared, lambda row: axis_value(axis, row["value"]))


def base_table(material: Material) -> dict[str, Any]:
    """Every setting on every measure against its untrained base."""
    compared = material.compared
    return comparison_table(compared.comparisons, compared, lambda row: compared.setting_labels[row["run"]])


def control_table(material: Material) -> dict[str, Any]:
    """The untrained bases in two precisions, measure by measure."""
    rows = pd.DataFrame(material.compared.summary["precision_controls"])
    return comparison_table(rows, material.compared, lambda row: f"{row['low_model']} ({row['precision']})")


def comparison_table(rows: pd.DataFrame, compared: ComparedStudy, name: Callable[[pd.Series], str]) -> dict[str, Any]:
    """Comparisons in `groups` by their family, the main question first, and what their intervals `cover`."""
    if rows.empty:
        return {"groups": [], "count": 0, "covers": ""}
    groups = []
    for family, heading in FAMILY_HEADINGS.items():
        found = rows[rows["family"] == family]
        texts = [comparison_row(row, compared.units[row["task"]], name(row)) for _, row in found.iterrows()]
        if texts:
            groups.append({"heading": heading, "rows": texts})
    return {"groups": groups, "count": len(rows), "covers": covers_text(rows)}


def comparison_row(row: pd.Series, unit: str, name: str) -> dict[str, Any]:
    """One comparison as texts; without a test the verdict is "not compared", with the reason."""
    places = decimals(row.get("low"), row.get("high"))
    items, requests = items_text(row)
    return {
        "name": visible(name, 80),
        "task": _measured(row),
        "items": items,
        "requests": requests,
        "incomplete": " of " in items,
        "before": score(row.get("reference_score"), unit, places),
        "after": score(row.get("score"), unit, places),
        "difference": change_beside(row["difference"], row.get("low"), row.get("high"), unit),
        "interval": between(row["low"], row["high"], unit) if row["verdict"] else "",
        "skew": skew_text(row),
        "p": p_value(row.get("p_corrected")),
        "verdict": row["verdict"] or "not compared",
        "reason": reason_text(row) or open_text(row, unit),
    }


def _measured(row: pd.Series) -> str:
    """The task, and the unit where it is not the task's own."""
    name = task_name(row["task"])
    return f"{name}, bits per byte" if row.get("metric") == BITS_PER_BYTE else name


def _other_tokens(material: Material) -> bool:
    """Whether the runs' held-out tokens differ: then losses of models cannot be compared."""
    return len({card.get("heldout_fingerprint") for card in material.cards.values()}) > 1


def axis_sections(material: Material) -> list[dict[str, Any]]:
    """One section per axis that the study varies; a search's winner has its own section."""
    return [
        {
            "axis": axis,
            "title": start(material.compared.axis(axis)),
            "finding": axis_finding(material.compared, axis),
            "table": axis_table(material, axis),
            "arms": arm_lines(material, axis),
            "other_tokens": axis == "model" and _other_tokens(material),
        }
        for axis in study_axes(material.study)
    ]


def _with_name(setting: str, value: Any) -> str:
    return f"{axis_name(setting)} {axis_value(setting, value_text(value))}"


def arm_lines(material: Material, axis: str) -> list[str]:
    """What each named arm departs in: "light: rank 4, method dora"."""
    if axis != "cells":
        return []
    return [
        f"{visible(name, 40)}: {', '.join(_with_name(setting, value) for setting, value in departs.items())}"
        for name, departs in material.study.grid.cells.items()
    ]
