"""The report's answer to "what was forgotten?", and its three answers together."""

from typing import Any

import pandas as pd

from loragrid.comparing.trade_off import SHIP
from loragrid.formatting import between, change, decimals, listed, plain_name, plural
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.sentences.axis_findings import what_mattered
from loragrid.reporting.sentences.findings import Headline, did_it_help, not_scored, start
from loragrid.statistics.paired_statistics import WORSE

MOST_NAMED = 3  # settings in one sentence; the tables have all
SMALL_COUNTS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")


def answers(compared: ComparedStudy) -> list[Headline]:
    """The three answers at the top of the page."""
    if compared.target is None or compared.comparisons.empty:
        text = "No run has been scored beside its base yet, so nothing can be said."
        return [Headline("Did fine-tuning help?", "unsure", "Can't tell", f"{text}{not_scored(compared)}")]
    return [did_it_help(compared), what_mattered(compared), what_was_forgotten(compared)]


def what_was_forgotten(compared: ComparedStudy) -> Headline:
    """Which settings did worse than their base on the retention tasks."""
    question = "What was forgotten?"
    rows = compared.of_runs
    rows = rows[(rows["group"] == "retention") & (rows["verdict"] != "")]
    if rows.empty:
        text = "The study names no retention task, or none could be compared."
        return Headline(question, "unsure", "Not measured", text)
    noun = compared.noun(rows).removeprefix("scored ")
    runs = list(dict.fromkeys(rows.loc[rows["verdict"] == WORSE, "run"]))
    points = f"{compared.summary['terms']['retention_margin'] * 100:g} points"
    tone, short = "unsure", "Nothing proved"
    if runs:
        text = _worse_sentence(runs, noun, compared)
        tone, short = "unsure", f"Some {noun}s forgot"
        if len(runs) == rows["run"].nunique():
            tone, short = "bad", f"All {noun}s forgot"
    elif _all_within_margin(rows, compared):
        tone, short = "good", f"At most {points}"
        text = f"On every retention task every interval excludes a loss of more than {points}."
    else:
        text = f"No {noun} is proved to have done worse on the retention tasks, but {_reach(rows, compared)}."
    return Headline(question, tone, short, " ".join([text, *_mean_changes(runs, compared)]))


def _worse_sentence(runs: list[str], noun: str, compared: ComparedStudy) -> str:
    """Two runs did worse on the retention tasks: learning rate 0.1 and rank 64."""
    count = str(len(runs))
    if len(runs) < len(SMALL_COUNTS):
        count = SMALL_COUNTS[len(runs)]
    named = [_name(run, compared) for run in runs[:MOST_NAMED]]
    if len(runs) > MOST_NAMED:
        named.append(f"{len(runs) - MOST_NAMED} more")
    nouns = noun if len(runs) == 1 else f"{noun}s"
    return f"{count} {nouns} did worse on the retention tasks: {listed(named)}."


def _name(run: str, compared: ComparedStudy) -> str:
    """The setting's label; in quotes where it is a list itself."""
    label = compared.setting_labels[run]
    return f"“{label}”" if "," in label else label


def _lower_ends(rows: pd.DataFrame, compared: ComparedStudy) -> pd.Series:
    """Lower ends of the rows' intervals of improvement, negative where a loss is possible."""
    higher = rows["task"].map(lambda task: compared.summary["tasks"][task]["higher_is_better"])
    return rows["low"].where(higher, -rows["high"])


def _all_within_margin(rows: pd.DataFrame, compared: ComparedStudy) -> bool:
    # The margin is in points, so tasks in another unit leave the question open.
    if any(compared.units[task] != "share" for task in set(rows["task"])):
        return False
    margin = compared.summary["terms"]["retention_margin"]
    return bool((_lower_ends(rows, compared) >= -margin).all())


def _reach(rows: pd.DataFrame, compared: ComparedStudy) -> str:
    """How large a loss the intervals still allow."""
    shares = rows[rows["task"].map(compared.units) == "share"]
    if shares.empty:
        return "no margin is set for these tasks"
    low = _lower_ends(shares, compared)
    row = shares.loc[low.idxmin()]
    reach = change(low.min(), "share", words=True)
    return f"the intervals reach down to {reach} ({plain_name(row['task'])}, {_name(row['run'], compared)})"


def _mean_changes(runs: list[str], compared: ComparedStudy) -> list[str]:
    """Sentences on the mean change in retention: the setting that lost most, the base case."""
    trades = [row for row in compared.summary["trade_offs"] if row["kept"] is not None]
    lost = min((row for row in trades if row["run"] in runs), key=lambda row: row["kept"], default=None)
    case = next((row for row in trades if row["run"] in compared.base_case_runs), None)
    if lost is None and case is None:
        return []
    parts, over = [], _over_tasks(lost or case)
    if lost:
        parts.append(f"{start(_name(lost['run'], compared))} lost most on average: {_kept(lost)} {over}.")
    if case and case is not lost:
        text = f"The base case changed by {_kept(case)}"
        if not lost:
            text += f" {over}"
        # A mean over tasks has more items than one task, so it can show a loss that none proves.
        if case["kept_high"] < 0 and case["run"] not in runs:
            text += ", not proved on any single task"
        parts.append(f"{text}.")
    of_runs = [row for row in compared.summary["trade_offs"] if row["run"] not in compared.adopted]
    count, ships = len(of_runs), sum(row["ship"] == SHIP for row in of_runs)
    verb = "are" if ships > 1 else "is"
    parts.append(f"{ships or 'None'} of {count} {verb} fit to ship on this evidence.")
    return parts


def _over_tasks(row: dict[str, Any]) -> str:
    over = f"over {plural(row['retention_tasks'], 'retention task')}"
    if row["unmargined"]:
        over += f" (without {listed([plain_name(task) for task in row['unmargined']])}, in another unit)"
    return over


def _kept(row: dict[str, Any]) -> str:
    amount = change(row["kept"], "share", words=True, places=decimals(row["kept_low"], row["kept_high"]))
    return f"{amount} ({between(row['kept_low'], row['kept_high'], 'share')})"
