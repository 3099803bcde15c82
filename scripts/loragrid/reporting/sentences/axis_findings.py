"""The report's answer to "which setting mattered?", and a sentence per axis."""

import math
from dataclasses import dataclass

import pandas as pd

from loragrid.comparing.designs.axis_pairs import UNTRAINED
from loragrid.formatting import detectable, listed, plain_name, plural
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.sentences.findings import Headline, difference, start
from loragrid.reporting.sentences.interactions import movement_text, moving_pairs
from loragrid.reporting.sentences.limits import reason_text
from loragrid.setting_texts import axis_name, axis_value
from loragrid.statistics.paired_statistics import UNSURE
from loragrid.study.grid import ARMS, NAMED, TIED

# Findings on other tasks that the first answers name; the tables have all of them.
MOST_ELSEWHERE = 3


def what_mattered(compared: ComparedStudy) -> Headline:
    """Which axes have a value with a proved effect on the main target, and which have none."""
    question = "Which setting mattered?"
    rows = compared.axes[compared.axes["task"] == compared.target]
    # Training against no training is the first question, and no setting.
    rows = rows[~((rows.get("axis") == "method") & (rows.get("value") == UNTRAINED))]
    if rows.empty or (rows["verdict"] == "").all():
        reasons = "".join(f" {_not_compared(rows, axis)}." for axis in dict.fromkeys(rows.get("axis", ())))
        text = f"No setting could be compared with the base case yet.{reasons}"
        return Headline(question, "unsure", "Can't tell", text)
    found = _sort_axes(rows, compared)
    parts = _effects(found, compared) + [f"{reason}." for reason in found.not_compared]
    parts += [f"{movement_text(pair, compared.target)}" for pair in moving_pairs(compared)]
    if compared.target not in compared.summary["noise"]:
        parts.append("One seed per setting: part of each difference may be the luck of the seed.")
    if found.moved:
        return Headline(question, "good", start(listed(found.moved)), " ".join(parts))
    return Headline(question, "unsure", "Can't tell", " ".join(parts))


@dataclass(frozen=True)
class AxesFound:
    """The axes by what their tests on the main target show, each as words for the answer.

    `moved` and `steps`: names and proved differences; `still`: axes without a proved effect, and
    `detectable` what their tests could find; `elsewhere`: what those do on other tasks;
    `not_compared`: axes without a test, with the reason.
    """

    moved: list[str]
    steps: list[str]
    still: list[str]
    detectable: list[float]
    elsewhere: list[str]
    not_compared: list[str]


def _sort_axes(rows: pd.DataFrame, compared: ComparedStudy) -> AxesFound:
    found = AxesFound([], [], [], [], [], [])
    for axis, of_axis in rows.groupby("axis", sort=False):
        judged = of_axis[of_axis["verdict"] != ""]
        proved = judged[judged["verdict"] != UNSURE]
        if len(proved):
            found.moved.append(axis_name(axis))
            found.steps.append(_largest_steps(proved, axis, compared))
        elif len(judged):
            # The largest of the values' detectable differences: any effect beyond it would have
            # shown on each value.
            found.still.append(axis_name(axis))
            found.detectable.append(judged["detectable"].max(skipna=False))
            for value, verdict, default, tasks in proved_elsewhere(compared, axis):
                found.elsewhere.append(f"{_named(axis, value)} is {verdict} than {default} on {tasks}")
        else:
            found.not_compared.append(_not_compared(rows, axis))
    return found


def _largest_steps(proved: pd.DataFrame, axis: str, compared: ComparedStudy) -> str:
    """The best and the worst of an axis's proved values, and how many lie between."""
    ends = dict.fromkeys((proved["improvement"].idxmax(), proved["improvement"].idxmin()))
    between_them = len(proved) - len(ends)
    more = f" ({plural(between_them, 'value')} between)" if between_them > 0 else ""
    return listed([_step(proved.loc[index], axis, compared) for index in ends]) + more


def _effects(found: AxesFound, compared: ComparedStudy) -> list[str]:
    """Sentences on the main target, then on other tasks."""
    name = plain_name(compared.target)
    parts = [f"{start(step)}." for step in found.steps]
    if found.steps:
        parts[0] = f"On {name}: {found.steps[0]}."
    if found.still:
        parts.append(f"{start(listed(found.still))}: no effect proved; {_missed(found.detectable, compared)}.")
    if found.elsewhere:
        count = len(found.elsewhere) - MOST_ELSEWHERE
        more = f"; {count} more" if count > 0 else ""
        parts.append(f"On other tasks: {'; '.join(found.elsewhere[:MOST_ELSEWHERE])}{more}.")
    return parts


def _missed(sizes: list[float], compared: ComparedStudy) -> str:
    """The size below which the tests of these axes would usually miss an effect."""
    largest = max(sizes, key=lambda size: math.inf if math.isnan(size) else size)
    if math.isnan(largest):
        return "these tests cannot prove an effect of any size"
    return f"an effect below about {detectable(largest, compared.unit)} would usually be missed"


def proved_elsewhere(compared: ComparedStudy, axis: str) -> list[tuple[str, str, str, str]]:
    """An axis's proved effects on other tasks: (value, verdict, base case's value, tasks)."""
    rows = compared.axes
    rows = rows[(rows["axis"] == axis) & (rows["task"] != compared.target) & ~rows["verdict"].isin(["", UNSURE])]
    found = []
    for (value, verdict, default), group in rows.groupby(["value", "verdict", "base_case_value"], sort=False):
        tasks = listed([plain_name(task) for task in group["task"]])
        found.append((axis_value(axis, value), verdict, axis_value(axis, default), tasks))
    return found


def _not_compared(rows: pd.DataFrame, axis: str) -> str:
    return f"{start(axis_name(axis))} was not compared: {reason_text(rows[rows['axis'] == axis].iloc[0])}"


def _step(row: pd.Series, axis: str, compared: ComparedStudy) -> str:
    amount = difference(row, compared.unit).lstrip("+−")
    direction = "higher" if row["difference"] > 0 else "lower"
    judged = "" if compared.higher_is_better else f", which is {row['verdict']}"
    value, default = (axis_value(axis, row[key]) for key in ("value", "base_case_value"))
    if axis in ARMS:
        default = "the base case"
    return f"{_named(axis, value)} scored {amount} {direction} than {default}{judged}"


def _named(axis: str, value: str) -> str:
    """A value with its axis; an arm of several settings is named by itself."""
    return value if axis in (TIED, NAMED) else f"{axis_name(axis)} {value}"


def axis_finding(compared: ComparedStudy, axis: str) -> str:
    """One sentence above an axis's figures: what its values did on the main target."""
    rows = compared.axes
    rows = rows[(rows["axis"] == axis) & (rows["task"] == compared.target)]
    judged = rows[rows["verdict"] != ""]
    if judged.empty:
        if rows.empty:
            return "Nothing to compare yet."
        return f"Not compared: {reason_text(rows.iloc[0])}."
    parts = [_value_finding(row, axis, compared) for _, row in judged.iterrows()]
    elsewhere = [f"{value} is {verdict} on {tasks}" for value, verdict, _, tasks in proved_elsewhere(compared, axis)]
    text = f"On {plain_name(compared.target)}: {'; '.join(parts)}."
    # A search's winner differs in several settings, so its row says nothing about one of them.
    if elsewhere and axis != "search":
        text += f" On other tasks: {'; '.join(elsewhere)}."
    return text


def _value_finding(row: pd.Series, axis: str, compared: ComparedStudy) -> str:
    amount = difference(row, compared.unit)
    value, default = (axis_value(axis, row[key]) for key in ("value", "base_case_value"))
    if row["verdict"] != UNSURE:
        return f"{value} is {row['verdict']} than {default} ({amount})"
    least = detectable(row["detectable"], compared.unit)
    return f"{value} against {default}: can’t tell ({amount}; detectable: {least})"
