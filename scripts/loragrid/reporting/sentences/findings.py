"""The report's answer to "did fine-tuning help?", which claims no more than its tests can show."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from loragrid.formatting import (
    between,
    change,
    decimals,
    detectable,
    listed,
    p_value,
    plain_name,
    plural,
    score,
)
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.statistics.paired_statistics import BETTER, UNSURE, WORSE

# Status of a run without a score → its name in the headline.
NOT_SCORED = {
    "diverged": "diverged",
    "failed": "failed",
    "paused": "stopped early",
    "missing": "not run yet",
    "trained": "trained only",
    "unreadable": "unreadable",
}


@dataclass(frozen=True)
class Headline:
    """One question with its answer.

    `tone` is good, bad or unsure and colours the `short` answer, which says the same.
    """

    question: str
    tone: str
    short: str
    text: str


def difference(row: Any, unit: str) -> str:
    """A row's difference with its unit and the decimals that its interval deserves."""
    return change(row["difference"], unit, words=True, places=decimals(row["low"], row["high"]))


def start(sentence: str) -> str:
    """The sentence with a capital letter."""
    return sentence[:1].upper() + sentence[1:]


def not_scored(compared: ComparedStudy) -> str:
    """A sentence on the runs that are in no comparison, or nothing."""
    statuses = compared.summary["statuses"]
    without = {status: count for status, count in statuses.items() if status != "scored"}
    if not without:
        return ""
    parts = ", ".join(f"{without[status]} {word}" for status, word in NOT_SCORED.items() if status in without)
    count = sum(without.values())
    verb = "was" if count == 1 else "were"
    return f" {count} of {plural(sum(statuses.values()), 'run')} {verb} not scored ({parts})."


def did_it_help(compared: ComparedStudy) -> Headline:
    """How many settings beat their base on the main target, and by how much the base case did."""
    question = "Did fine-tuning help?"
    rows = compared.of_runs[compared.of_runs["task"] == compared.target]
    rows = rows[rows["verdict"] != ""]
    rest = not_scored(compared)
    if rows.empty:
        return Headline(
            question, "unsure", "Can't tell", f"No run could be compared with its base on the target.{rest}"
        )
    better, worse = rows[rows["verdict"] == BETTER], rows[rows["verdict"] == WORSE]
    name = f"“{plain_name(compared.target)}”"
    if not compared.higher_is_better:
        name += " (lower is better)"
    everyone = plural(len(rows), compared.noun(rows))
    harm = f", {len(worse)} did worse" if len(worse) else ""
    detail = _detail(rows, compared)
    if len(better):
        tone, short = "unsure", "It depends"
        if not len(worse):
            tone, short = "good", _how_often(better, rows, compared)
        their = "its" if len(better) == 1 else "their"
        count = f"{len(better)} of {everyone} beat {their} base on {name}"
        return Headline(question, tone, short, f"{count}{harm}. {detail}{_other_targets(compared)}{rest}")
    if len(worse):
        text = f"None of {everyone} beat its base on {name}{harm}. {detail}{rest}"
        return Headline(question, "bad", "No", text)
    text = f"None of {everyone} differs from its base on {name} by more than chance explains. {detail}"
    return Headline(question, "unsure", "Can't tell", f"{text}{_other_targets(compared)}{rest}")


def _other_targets(compared: ComparedStudy) -> str:
    """How many settings are proved better on the other tasks that training should improve."""
    rows = compared.of_runs
    rows = rows[(rows["group"] == "target") & (rows["task"] != compared.target) & (rows["verdict"] != "")]
    parts = [
        f"{plain_name(task)}: {(found['verdict'] == BETTER).sum()} of {len(found)} better"
        for task, found in rows.groupby("task", sort=False)
    ]
    return f" On other targets, {listed(parts)}." if parts else ""


def _how_often(better: pd.DataFrame, rows: pd.DataFrame, compared: ComparedStudy) -> str:
    # One gain among many settings is no answer to "did it help", unless it is the base case's.
    case = better["run"].isin(compared.base_case_runs).any()
    return "Yes" if case or 2 * len(better) > len(rows) else "Some settings did"


def _detail(rows: pd.DataFrame, compared: ComparedStudy) -> str:
    """The base case's row in full; if it was not compared, the row with the largest change."""
    case = rows[rows["run"].isin(compared.base_case_runs)]
    if len(case):
        row, who = case.iloc[0], "The base case"
    else:
        row = rows.loc[rows["improvement"].abs().idxmax()]
        who = start(compared.setting_labels[row["run"]])
    places = decimals(row["low"], row["high"])
    before, after = (score(row[name], compared.unit, places) for name in ("reference_score", "score"))
    seeds = f" (mean of {row['seeds']} seeds)" if row["seeds"] > 1 else ""
    unsure = "; can’t tell" if row["verdict"] == UNSURE else ""
    text = (
        f"{who} went from {before} to {after}{seeds}, {difference(row, compared.unit)} ({compared.interval} "
        f"{between(row['low'], row['high'], compared.unit)}, corrected p {p_value(row['p_corrected'])}{unsure})."
    )
    # What a test might have missed says nothing beside a proved difference.
    return f"{text} {_power(row, compared)}" if unsure else text


def _power(row: pd.Series, compared: ComparedStudy) -> str:
    if pd.isna(row["detectable"]):
        return "This test cannot prove a difference of any size."
    smallest = detectable(row["detectable"], compared.unit)
    return f"This test finds a difference of {smallest} or more with a probability of {compared.power}."
