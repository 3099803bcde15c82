"""The report's sentences on what was forgotten, and its table of what to ship."""

from typing import Any

import pandas as pd

from loragrid.formatting import between, change, decimals, detectable, listed, p_value, plain_name, plural
from loragrid.reporting.findings import Answer, ComparedStudy, did_it_help, not_scored, what_mattered


def answers(compared: ComparedStudy) -> list[Answer]:
    """The three answers of the page's top: did it help, which setting mattered, what was lost."""
    if compared.target is None or compared.comparisons.empty:
        text = "No run has been scored beside its untrained base yet, so nothing can be said."
        return [Answer("Did fine-tuning help?", "unsure", "Can't tell", f"{text}{not_scored(compared)}")]
    return [did_it_help(compared), what_mattered(compared), what_was_lost(compared)]


def what_was_lost(compared: ComparedStudy) -> Answer:
    """What the base knew before and the settings lost, over the retention tasks."""
    question = "What was forgotten?"
    rows = compared.comparisons
    rows = rows[(rows["group"] == "retention") & (rows["verdict"] != "")]
    if rows.empty:
        text = "The study names no retention task, or none could be compared."
        return Answer(question, "unsure", "Not measured", text)
    noun = compared.noun(rows).removeprefix("scored ")
    proved = rows[rows["verdict"] == "worse"]
    runs = list(dict.fromkeys(proved["run"]))
    margin = compared.summary["terms"]["retention_margin"]
    tone, short, parts = "unsure", "Nothing proved", []
    if runs:
        named = listed([f"“{compared.setting_labels[run]}”" for run in runs[:3]])
        more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        verb = "is" if len(runs) == 1 else "are"
        parts.append(f"{plural(len(runs), noun)} {verb} shown to have lost: {named}{more}.")
        everyone = len(runs) == rows["run"].nunique()
        tone, short = ("bad", f"All {noun}s forgot") if everyone else ("unsure", f"Some {noun}s forgot")
    elif _all_within(rows, compared, margin):
        tone, short = "good", f"At most {margin * 100:g} points"
        parts.append(f"On every retention task every interval excludes a loss of more than {margin * 100:g} points.")
    else:
        parts.append(f"No {noun} is shown to have lost what its base could do, but {_least(rows, compared)}.")
    return Answer(question, tone, short, " ".join(parts + _means(runs, compared)))


def _improvements(rows: pd.DataFrame, compared: ComparedStudy) -> pd.Series:
    """Lower ends of the rows' intervals, positive where good."""
    higher = rows["task"].map(lambda task: compared.summary["tasks"][task]["higher_is_better"])
    return rows["low"].where(higher, -rows["high"])


def _all_within(rows: pd.DataFrame, compared: ComparedStudy, margin: float) -> bool:
    shares = all(compared.summary["tasks"][task]["unit"] == "share" for task in set(rows["task"]))
    return shares and bool((_improvements(rows, compared) >= -margin).all())


def _least(rows: pd.DataFrame, compared: ComparedStudy) -> str:
    """How far down the widest interval reaches."""
    units = rows["task"].map(lambda task: compared.summary["tasks"][task]["unit"])
    shares = rows[units == "share"]
    if shares.empty:
        return "no margin is set for what was measured"
    low = _improvements(shares, compared)
    row = shares.loc[low.idxmin()]
    reach = change(low.min(), "share", words=True)
    return f"the intervals reach down to {reach} ({plain_name(row['task'])}, “{compared.setting_labels[row['run']]}”)"


def _means(runs: list[str], compared: ComparedStudy) -> list[str]:
    """Sentences on the mean change over the retention tasks: of the setting that lost most, and of the base case."""
    trades = [row for row in compared.summary["trade_offs"] if row["kept"] is not None]
    lost = min((row for row in trades if row["run"] in runs), key=lambda row: row["kept"], default=None)
    case = next((row for row in trades if row["run"] in compared.base_case_runs), None)
    if lost is None and case is None:
        return []
    known, parts = lost or case, []
    over = f"over {plural(known['retention_tasks'], 'retention task')}"
    if known["unmargined"]:
        over += f" (without {listed([plain_name(task) for task in known['unmargined']])}, in another unit)"
    if lost:
        parts.append(f"The largest mean loss {over} is {_kept(lost)}, by “{compared.setting_labels[lost['run']]}”.")
    if case and case is not lost:
        unproved = ", not proved on any single task" if case["kept_high"] < 0 and case["run"] not in runs else ""
        parts.append(f"The base case changed by {_kept(case)}{'' if lost else f' {over}'}{unproved}.")
    ships = sum(row["ship"] == "ship" for row in compared.summary["trade_offs"])
    count = len(compared.summary["trade_offs"])
    parts.append(f"Fit to ship on this evidence: {ships or 'none'} of {count}.")
    return parts


def _kept(row: dict[str, Any]) -> str:
    return _amount(row, "kept", "share") + f" ({between(row['kept_low'], row['kept_high'], 'share')})"


def _amount(row: dict[str, Any], name: str, unit: str) -> str:
    return change(row[name], unit, words=True, places=decimals(row[f"{name}_low"], row[f"{name}_high"]))


def ship_lines(compared: ComparedStudy) -> list[dict[str, Any]]:
    """Per compared setting: label, what it learned and kept, and the ship line with its reason."""
    return [_ship_line(row, compared) for row in compared.summary["trade_offs"]]


def _ship_line(row: dict[str, Any], compared: ComparedStudy) -> dict[str, Any]:
    worst = "–"
    if row.get("worst_task"):
        worst = (
            f"{plain_name(row['worst_task'])} {_amount(row, 'worst', 'share')} "
            f"({between(row['worst_low'], row['worst_high'], 'share')})"
        )
    return {
        "label": compared.setting_labels[row["run"]],
        "seeds": row["seeds"],
        "gain": _amount(row, "gain", compared.unit),
        "gain_interval": between(row["gain_low"], row["gain_high"], compared.unit),
        "p": p_value(row["gain_p"]),
        "detectable": detectable(row["gain_detectable"], compared.unit),
        "verdict": row["gain_verdict"],
        "kept": "–" if row["kept"] is None else _amount(row, "kept", "share"),
        "kept_interval": "" if row["kept"] is None else between(row["kept_low"], row["kept_high"], "share"),
        "worst": worst,
        "ship": row["ship"],
        "reason": row["ship_reason"],
        "pareto": row["pareto"],
    }
