"""The page's tables of comparisons: with the base case, with the bases, and by precision."""

from typing import Any

import pandas as pd

from loragrid.comparing.designs.axis_pairs import study_axes
from loragrid.formatting import between, change, decimals, detectable, p_value, plain_name, score, visible
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.page import Material
from loragrid.reporting.sentences.axis_findings import axis_finding
from loragrid.reporting.sentences.findings import start
from loragrid.reporting.sentences.limits import reason_text
from loragrid.setting_texts import axis_name, axis_value
from loragrid.statistics.paired_statistics import MCNEMAR, SEEDS_T, UNSURE
from loragrid.statistics.sign_flips import DRAWN, EXACT, TAIL
from loragrid.study.run_names import value_text


def axis_rows(material: Material, axis: str) -> list[dict[str, Any]]:
    """The table under an axis's figures: every value on every task against the base case."""
    table, units = material.compared.axes, material.compared.units
    return [
        comparison_row(row, units[row["task"]], axis_value(axis, row["value"]))
        for _, row in table[table["axis"] == axis].iterrows()
    ]


def base_rows(material: Material) -> list[dict[str, Any]]:
    """Every setting on every task against its untrained base."""
    compared = material.compared
    units = compared.units
    return [
        comparison_row(row, units[row["task"]], compared.setting_labels[row["run"]])
        for _, row in compared.comparisons.iterrows()
    ]


def control_rows(material: Material) -> list[dict[str, Any]]:
    """The untrained bases in two precisions, task by task."""
    return [
        comparison_row(pd.Series(row), row["unit"], f"{row['low_model']} ({row['precision']})")
        for row in material.compared.summary["precision_controls"]
    ]


def comparison_row(row: pd.Series, unit: str, name: str) -> dict[str, Any]:
    """One comparison as texts; without a test the verdict is "not compared", with the reason."""
    places = decimals(row.get("low"), row.get("high"))
    interval, smallest = "", "–"
    if row["verdict"]:
        interval = between(row["low"], row["high"], unit)
    if row["verdict"] == UNSURE:
        smallest = detectable(row.get("detectable"), unit)
    return {
        "name": visible(name, 80),
        "task": plain_name(row["task"]),
        "before": score(row.get("reference_score"), unit, places),
        "after": score(row.get("score"), unit, places),
        "difference": change(row["difference"], unit, words=True, places=places),
        "interval": interval,
        "p": p_value(row.get("p_corrected")),
        "detectable": smallest,
        "verdict": row["verdict"] or "not compared",
        "reason": reason_text(row),
    }


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
            "rows": axis_rows(material, axis),
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


def noise_floor(material: Material) -> list[str]:
    """Per task with a measured seed variance: its name and standard deviation."""
    found = []
    for task, known in material.compared.summary["noise"].items():
        unit = material.compared.summary["tasks"][task]["unit"]
        amount = change(known["sd"], unit, words=True, places=1).lstrip("+")
        found.append(f"{plain_name(task)} (standard deviation {amount}, {known['df']} degrees of freedom)")
    return found


# Method in the tables → its sentence on the page.
TESTS = {
    MCNEMAR: "Right-or-wrong items are tested by the exact McNemar test.",
    EXACT: (
        "Where few items are not simply right or wrong, or few passages are shared, all flips of the "
        "signs of their differences are counted."
    ),
    DRAWN: (
        "Items that are not simply right or wrong, or that share a passage, are tested by random "
        "flips of the signs of their differences."
    ),
    TAIL: (
        "Where no random flip reaches the observed difference, the p value is that of the paired t "
        "test, which assumes many items: random flips alone cannot give a p value small enough to "
        "survive the correction."
    ),
    SEEDS_T: (
        "Where the variance between seeds was measured, a t test on the variances of items and seeds "
        "together replaces the tests on items alone."
    ),
}


def methods_used(compared: ComparedStudy) -> list[str]:
    """One sentence per method behind the verdicts of this page."""
    frames = (compared.comparisons, compared.axes)
    used = {method for frame in frames if "method" in frame for method in frame["method"].dropna()}
    return [sentence for method, sentence in TESTS.items() if method in used]


def task_notes(material: Material) -> dict[str, list[str]]:
    """Tasks whose items share passages (`clustered`), and retention tasks without a margin."""
    tasks = material.compared.summary["tasks"]
    return {
        "clustered": [plain_name(name) for name, task in tasks.items() if task["clusters"]],
        "unmargined": [
            plain_name(name) for name, task in tasks.items() if task["group"] == "retention" and task["unit"] != "share"
        ],
    }
