"""The report's answers in sentences, each drawn from the tables and never saying more than its test could see."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from loragrid.comparing.axis_effects import COMPARED_AXES
from loragrid.formatting import (
    axis_value,
    between,
    change,
    decimals,
    detectable,
    listed,
    p_value,
    plain_name,
    plural,
    score,
    visible,
)

UNSURE = "can't tell"
MOST_ELSEWHERE = 3  # findings on other tasks in the page's first answers; the tables have all
# status of a run that has no score → what the headline calls it
NOT_SCORED = {
    "diverged": "diverged",
    "failed": "failed",
    "paused": "stopped early",
    "missing": "not run yet",
    "trained": "trained only",
    "unreadable": "unreadable",
}


@dataclass(frozen=True)
class Answer:
    """One question with its answer; `tone` is good, bad or unsure, for the colour beside the word that says it too."""

    question: str
    tone: str
    short: str
    text: str


@dataclass(frozen=True)
class ComparedStudy:
    """What the sentences are drawn from: compare.json, its tables, run → label, and run → label of its setting, which
    leaves the seed out."""

    summary: dict[str, Any]
    comparisons: pd.DataFrame
    axes: pd.DataFrame
    labels: dict[str, str]
    setting_labels: dict[str, str]
    base_case_runs: tuple[str, ...]

    @property
    def target(self) -> str | None:
        return self.summary["primary_target"]

    @property
    def unit(self) -> str:
        return self.summary["tasks"][self.target]["unit"] if self.target else "plain"

    @property
    def higher_is_better(self) -> bool:
        return self.summary["tasks"][self.target]["higher_is_better"] if self.target else True

    @property
    def interval(self) -> str:
        return f"{round((1 - self.summary['terms']['alpha']) * 100)}% interval"

    @property
    def chance(self) -> str:
        return f"{self.summary['terms']['power'] * 100:g}%"

    def axis(self, axis: str) -> str:
        """What an axis is called: rank has alpha beside it."""
        return self.summary["axis_names"][axis]

    def noun(self, rows: pd.DataFrame) -> str:
        """What a row of comparisons is: one run, or a setting whose seeds were averaged."""
        return "scored run" if (rows["seeds"] == 1).all() else "setting"


def difference(row: Any, unit: str) -> str:
    """A row's difference in words, with the decimals that its interval deserves."""
    return change(row["difference"], unit, words=True, places=decimals(row["low"], row["high"]))


def not_scored(compared: ComparedStudy) -> str:
    """A sentence on the runs that are in no comparison, or nothing."""
    statuses = compared.summary["statuses"]
    without = {status: count for status, count in statuses.items() if status != "scored"}
    if not without:
        return ""
    parts = ", ".join(f"{without[status]} {word}" for status, word in NOT_SCORED.items() if status in without)
    count = sum(without.values())
    return (
        f" {count} of {plural(sum(statuses.values()), 'run')} {'was' if count == 1 else 'were'} not scored ({parts})."
    )


def did_it_help(compared: ComparedStudy) -> Answer:
    """How many settings beat their base on the main target, and by how much the base case did."""
    question = "Did fine-tuning help?"
    rows = compared.comparisons[compared.comparisons["task"] == compared.target]
    rows = rows[rows["verdict"] != ""]
    rest = not_scored(compared)
    if rows.empty:
        text = f"No run could be compared with its base on the target.{rest}"
        return Answer(question, "unsure", "Can't tell", text)
    better, worse = rows[rows["verdict"] == "better"], rows[rows["verdict"] == "worse"]
    name = f"“{plain_name(compared.target)}”" + ("" if compared.higher_is_better else " (lower is better)")
    detail = _detail(rows, compared)
    all_ = plural(len(rows), compared.noun(rows))
    harm = f", {len(worse)} did worse" if len(worse) else ""
    if len(better):
        tone, short = ("good", _how_often(better, rows, compared)) if not len(worse) else ("unsure", "It depends")
        count = f"{len(better)} of {all_} beat {'its' if len(better) == 1 else 'their'} untrained base on {name}"
        return Answer(question, tone, short, f"{count}{harm}. {detail}{_other_targets(compared)}{rest}")
    if len(worse):
        text = f"None of {all_} beat its untrained base on {name}{harm}. {detail}{rest}"
        return Answer(question, "bad", "No", text)
    text = f"Of {all_} none differs from its untrained base on {name} by more than chance explains. {detail}"
    text += f"{_other_targets(compared)}{rest}"
    return Answer(question, "unsure", "Can't tell", text)


def _other_targets(compared: ComparedStudy) -> str:
    """How many settings are proved better on the other tasks that training should improve."""
    rows = compared.comparisons
    rows = rows[(rows["group"] == "target") & (rows["task"] != compared.target) & (rows["verdict"] != "")]
    parts = [
        f"{plain_name(task)}: {(found['verdict'] == 'better').sum()} of {len(found)} better"
        for task, found in rows.groupby("task", sort=False)
    ]
    return f" On other targets, {listed(parts)}." if parts else ""


def _how_often(better: pd.DataFrame, rows: pd.DataFrame, compared: ComparedStudy) -> str:
    """Yes where the base case or most settings gained; a single one among many is not what the question means."""
    case = better["run"].isin(compared.base_case_runs).any()
    return "Yes" if case or 2 * len(better) > len(rows) else "Some settings did"


def _detail(rows: pd.DataFrame, compared: ComparedStudy) -> str:
    """The base case's row in full, or that of the largest change where the base case was not compared."""
    case = rows[rows["run"].isin(compared.base_case_runs)]
    row = case.iloc[0] if len(case) else rows.loc[rows["improvement"].abs().idxmax()]
    who = "The base case" if len(case) else start(compared.setting_labels[row["run"]])
    places = decimals(row["low"], row["high"])
    before, after = (score(row[name], compared.unit, places) for name in ("reference_score", "score"))
    seeds = f" (mean of {row['seeds']} seeds)" if row["seeds"] > 1 else ""
    unsure = "; can’t tell" if row["verdict"] == UNSURE else ""
    return (
        f"{who} went from {before} to {after}{seeds}, {difference(row, compared.unit)} ({compared.interval} "
        f"{between(row['low'], row['high'], compared.unit)}, corrected p {p_value(row['p_corrected'])}{unsure}). "
        f"What this test would find with a chance of {compared.chance}: {detectable(row['detectable'], compared.unit)}"
        + ("." if pd.isna(row["detectable"]) else " or more.")
    )


def start(sentence: str) -> str:
    """The sentence with a capital letter."""
    return sentence[:1].upper() + sentence[1:]


def what_mattered(compared: ComparedStudy) -> Answer:
    """Which axes hold a value that differs from the base case's on the main target, and which show nothing."""
    question = "Which setting mattered?"
    axes = compared.axes
    rows = axes[axes["task"] == compared.target] if not axes.empty else axes
    if rows.empty or (rows["verdict"] == "").all():
        reasons = "".join(f" {_not_compared(rows, axis, compared)}." for axis in dict.fromkeys(rows.get("axis", ())))
        text = f"No setting could be compared with the base case yet.{reasons}"
        return Answer(question, "unsure", "Can't tell", text)
    moved, parts, still, without, elsewhere = [], [], [], [], []
    for axis, of_axis in rows.groupby("axis", sort=False):
        told = of_axis[of_axis["verdict"] != ""]
        proved = told[told["verdict"] != UNSURE]
        if len(proved):
            ends = dict.fromkeys((proved["improvement"].idxmax(), proved["improvement"].idxmin()))
            steps = listed([_step(proved.loc[index], axis, compared) for index in ends])
            moved.append(compared.axis(axis))
            parts.append(start(f"{steps}{_more(len(proved) - len(ends))}."))
        elif len(told):
            least = detectable(told["detectable"].max(skipna=False), compared.unit)
            still.append(f"{compared.axis(axis)} ({least})")
            elsewhere += [
                f"{compared.axis(axis)} {value} is {verdict} than {default} on {tasks}"
                for value, verdict, default, tasks in proved_elsewhere(compared, axis)
            ]
        else:
            without.append(f"{start(_not_compared(rows, axis, compared))}.")
    name = plain_name(compared.target)
    if parts:
        parts[0] = f"On {name}: {parts[0][:1].lower()}{parts[0][1:]}"
    if still:
        parts.append(
            f"No effect on {name} was proved for {listed(still)}; in brackets, what would have been found with a chance of "
            f"{compared.chance} on each value."
        )
    if elsewhere:
        more = f"; {plural(len(elsewhere) - MOST_ELSEWHERE, 'more')}" if len(elsewhere) > MOST_ELSEWHERE else ""
        parts.append(f"On other tasks: {'; '.join(elsewhere[:MOST_ELSEWHERE])}{more}.")
    parts += without
    if compared.target not in compared.summary["noise"]:
        parts.append("One seed per setting: luck of the seed is in these differences.")
    short = start(listed(moved)) if moved else "Can't tell"
    return Answer(question, "good" if moved else "unsure", short, " ".join(parts))


def proved_elsewhere(compared: ComparedStudy, axis: str) -> list[tuple[str, str, str, str]]:
    """What an axis's values are proved to do on tasks other than the main target: (value, verdict, base case's value, tasks)."""
    rows = compared.axes
    rows = rows[(rows["axis"] == axis) & (rows["task"] != compared.target) & ~rows["verdict"].isin(["", UNSURE])]
    return [
        (
            axis_value(axis, value),
            verdict,
            axis_value(axis, default),
            listed([plain_name(task) for task in found["task"]]),
        )
        for (value, verdict, default), found in rows.groupby(["value", "verdict", "base_case_value"], sort=False)
    ]


def _more(count: int) -> str:
    return f" ({plural(count, 'value')} between)" if count > 0 else ""


def _not_compared(rows: pd.DataFrame, axis: str, compared: ComparedStudy) -> str:
    reason = rows.loc[rows["axis"] == axis, "reason"].iloc[0]
    return f"{compared.axis(axis)} was not compared: {visible(reason, 200).removeprefix('not comparable: ')}"


def _step(row: pd.Series, axis: str, compared: ComparedStudy) -> str:
    amount = difference(row, compared.unit).lstrip("+−")
    direction = "higher" if row["difference"] > 0 else "lower"
    judged = "" if compared.higher_is_better else f", which is {row['verdict']}"
    value, default = (axis_value(axis, row[key]) for key in ("value", "base_case_value"))
    return f"{compared.axis(axis)} {value} scored {amount} {direction} than {default}{judged}"


def axis_finding(compared: ComparedStudy, axis: str) -> str:
    """One sentence over an axis's pictures: what its values did on the main target."""
    rows = compared.axes
    if rows.empty or compared.target is None:
        return "Nothing to compare yet."
    rows = rows[(rows["axis"] == axis) & (rows["task"] == compared.target)]
    told = rows[rows["verdict"] != ""]
    if told.empty:
        reasons = [reason for reason in rows.get("reason", pd.Series(dtype=str)).dropna()]
        return f"Not compared: {visible(reasons[0], 200)}." if reasons else "Nothing to compare yet."
    parts = []
    for _, row in told.iterrows():
        amount = difference(row, compared.unit)
        value, default = (axis_value(axis, row[key]) for key in ("value", "base_case_value"))
        if row["verdict"] == UNSURE:
            least = detectable(row["detectable"], compared.unit)
            parts.append(f"{value} against {default}: can’t tell ({amount}; detectable: {least})")
        else:
            parts.append(f"{value} is {row['verdict']} than {default} ({amount})")
    elsewhere = [f"{value} is {verdict} on {tasks}" for value, verdict, _, tasks in proved_elsewhere(compared, axis)]
    more = f" On other tasks: {'; '.join(elsewhere)}." if elsewhere and axis in COMPARED_AXES else ""
    return f"On {plain_name(compared.target)}: {'; '.join(parts)}.{more}"
