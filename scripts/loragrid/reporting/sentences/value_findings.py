"""A sentence above an axis's figures: what each of its values did on the main target and on other measures."""

import pandas as pd

from loragrid.formatting import listed, plain_name
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.sentences.axis_findings import proved_elsewhere
from loragrid.reporting.sentences.findings import difference
from loragrid.reporting.sentences.largest_gain import unlearned_texts
from loragrid.reporting.sentences.limits import reason_text
from loragrid.reporting.sentences.verdicts import open_text
from loragrid.setting_texts import axis_value
from loragrid.statistics.paired_statistics import DIFFER, UNSURE
from loragrid.study.cell_pairs import UNTRAINED

MANY_VALUES = 4  # from this many on, values with one verdict share a clause


def axis_finding(compared: ComparedStudy, axis: str) -> str:
    """One sentence above an axis's figures: what its values did on the main target."""
    rows = compared.axes
    rows = rows[(rows["axis"] == axis) & (rows["task"] == compared.target)]
    judged = rows[rows["verdict"] != ""]
    if judged.empty:
        if rows.empty:
            return "Nothing to compare yet."
        return f"Not compared: {reason_text(rows.iloc[0])}."
    parts = _value_findings(judged, axis, compared)
    alike: dict[tuple[str, str], list[str]] = {}
    for value, verdict, _, tasks in proved_elsewhere(compared, axis):
        alike.setdefault((verdict, tasks), []).append(value)
    elsewhere = [
        f"{listed(values)} {'is' if len(values) == 1 else 'are'} {verdict} on {tasks}"
        for (verdict, tasks), values in alike.items()
    ]
    text = f"On {plain_name(compared.target)}: {'; '.join(parts)}."
    # A search's winner differs in several settings, so its row says nothing about one of them.
    if elsewhere and axis != "search":
        text += f" On other measures: {'; '.join(elsewhere)}."
    return text


def _value_findings(rows: pd.DataFrame, axis: str, compared: ComparedStudy) -> list[str]:
    """A clause per value; many values with one proved verdict share theirs."""
    counts, parts = rows["verdict"].value_counts(), []
    for verdict, group in rows.groupby("verdict", sort=False):
        if axis == "model" or verdict in (UNSURE, DIFFER) or counts[verdict] < MANY_VALUES:
            parts += [_value_finding(row, axis, compared) for _, row in group.iterrows()]
            continue
        values = [f"{axis_value(axis, row['value'])} ({difference(row, compared.unit)})" for _, row in group.iterrows()]
        parts.append(f"{verdict} than {axis_value(axis, group['base_case_value'].iloc[0])}: {listed(values)}")
    return parts


def _value_finding(row: pd.Series, axis: str, compared: ComparedStudy) -> str:
    amount = difference(row, compared.unit)
    value, default = (axis_value(axis, row[key]) for key in ("value", "base_case_value"))
    if axis == "model" and row["value"] in unlearned_texts(compared):
        return f"{value} is not compared as a model: it has not learned {plain_name(compared.target)} (see Why)"
    if row["verdict"] == DIFFER:
        both = f"the adapters of {value} and {default}"
        if axis == "method" and row["value"] == UNTRAINED:
            both = f"{value} and the adapter of {default}"
        return f"{both} differ ({amount})"
    if row["verdict"] != UNSURE:
        return f"{value} is {row['verdict']} than {default} ({amount})"
    return f"{value} against {default}: can’t tell ({amount}; {open_text(row, compared.unit)})"
