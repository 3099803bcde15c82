"""The report's answers in sentences, each drawn from the tables and never saying more than its test could see."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from study.wording import (
    AXIS_NAMES,
    axis_value,
    between,
    change,
    listed,
    plain_name,
    plural,
    points,
    score,
)

UNSURE = "can't tell"


@dataclass(frozen=True)
class Answer:
    """One question with its answer; `tone` is good, bad or unsure, for the colour beside the word that says it too."""

    question: str
    tone: str
    short: str
    text: str


@dataclass(frozen=True)
class Evidence:
    """What the sentences are drawn from: compare.json, its tables, and run → label."""

    summary: dict[str, Any]
    comparisons: pd.DataFrame
    axes: pd.DataFrame
    labels: dict[str, str]
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


def answers(evidence: Evidence) -> list[Answer]:
    """The three answers of the page's top: did it help, which setting mattered, what was lost."""
    if evidence.target is None or evidence.comparisons.empty:
        text = "No run has been scored beside its untrained base yet, so nothing can be said."
        return [Answer("Did fine-tuning help?", "unsure", "Can't tell", text)]
    return [did_it_help(evidence), what_mattered(evidence), what_was_lost(evidence)]


def did_it_help(evidence: Evidence) -> Answer:
    """How many runs beat their base on the main target, and by how much the base case did."""
    question = "Did fine-tuning help?"
    rows = evidence.comparisons[evidence.comparisons["task"] == evidence.target]
    rows = rows[rows["verdict"] != ""]
    if rows.empty:
        return Answer(question, "unsure", "Can't tell", "No run could be compared with its base on the target.")
    better, worse = rows[rows["verdict"] == "better"], rows[rows["verdict"] == "worse"]
    name = f"“{plain_name(evidence.target)}”" + ("" if evidence.higher_is_better else " (lower is better)")
    case = rows[rows["run"].isin(evidence.base_case_runs)]
    shown = case.iloc[0] if len(case) else rows.loc[rows["improvement"].abs().idxmax()]
    who = "the base case" if len(case) else evidence.labels[shown["run"]]
    detail = (
        f"{who} went from {score(shown['base_value'], evidence.unit)} to {score(shown['value'], evidence.unit)}, "
        f"{change(shown['difference'], evidence.unit, words=True)} ({evidence.interval} "
        f"{between(shown['low'], shown['high'], evidence.unit)}{'' if shown['verdict'] != UNSURE else '; can’t tell'})"
    )
    if len(better):
        tone, short = ("good", "Yes") if not len(worse) else ("unsure", "It depends")
        count = (
            f"{len(better)} of {plural(len(rows), 'scored run')} beat {_their(len(better))} untrained base on {name}"
        )
        harm = f", {len(worse)} did worse" if len(worse) else ""
        return Answer(question, tone, short, f"{count}{harm}. {_start(detail)}.")
    if len(worse):
        count = f"none of {plural(len(rows), 'scored run')} beat its untrained base on {name}, {len(worse)} did worse"
        return Answer(question, "bad", "No", f"{_start(count)}. {_start(detail)}.")
    least = change(rows["detectable"].min(), evidence.unit).lstrip("+")
    text = (
        f"No run differs from its untrained base on {name} by more than chance explains. {_start(detail)}. "
        f"A true difference under {least}{points(rows['detectable'].min(), evidence.unit)} would most likely have been missed."
    )
    return Answer(question, "unsure", "Can't tell", text)


def _start(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _their(count: int) -> str:
    return "its" if count == 1 else "their"


def what_mattered(evidence: Evidence) -> Answer:
    """Which axes hold a value that differs from the base case's on the main target, and which show nothing."""
    question = "Which setting mattered?"
    axes = evidence.axes
    if axes.empty or axes[(axes["task"] == evidence.target) & (axes["verdict"] != "")].empty:
        return Answer(question, "unsure", "Can't tell", "No setting could be compared with the base case yet.")
    rows = axes[(axes["task"] == evidence.target) & (axes["verdict"] != "")]
    moved, still = [], []
    for axis, of_axis in rows.groupby("axis", sort=False):
        proved = of_axis[of_axis["verdict"] != UNSURE]
        if len(proved):
            moved.append((AXIS_NAMES[axis], [_step(row, axis, evidence) for _, row in proved.iterrows()]))
        else:
            still.append((AXIS_NAMES[axis], of_axis["detectable"].min()))
    parts = [_start(f"{listed(steps)}.") for _, steps in moved]
    if still:
        names, least = listed([name for name, _ in still]), min(value for _, value in still)
        parts.append(
            f"For {names} no effect was seen; one under {change(least, evidence.unit).lstrip('+')}"
            f"{points(least, evidence.unit)} would most likely have been missed."
        )
    if evidence.target not in evidence.summary["noise"]:
        parts.append("One seed per setting: luck of the seed is in these differences.")
    short = _start(listed([name for name, _ in moved])) if moved else "Can't tell"
    return Answer(question, "good" if moved else "unsure", short, " ".join(parts))


def _step(row: pd.Series, axis: str, evidence: Evidence) -> str:
    amount = change(abs(row["difference"]), evidence.unit, words=True).lstrip("+")
    direction = "higher" if row["difference"] > 0 else "lower"
    judged = "" if evidence.higher_is_better else f", which is {row['verdict']}"
    value, default = (axis_value(axis, row[key]) for key in ("value", "base_case_value"))
    return f"{AXIS_NAMES[axis]} {value} scored {amount} {direction} than {default}{judged}"


def what_was_lost(evidence: Evidence) -> Answer:
    """What the base knew before and the runs lost, over the retention tasks."""
    question = "What was forgotten?"
    rows = evidence.comparisons
    rows = rows[(rows["group"] == "retention") & (rows["verdict"] != "")]
    if rows.empty:
        text = "The study names no retention task, or none could be compared."
        return Answer(question, "unsure", "Not measured", text)
    proved = rows[rows["verdict"] == "worse"]
    trades = [row for row in evidence.summary["trade_offs"] if row["kept"] is not None]
    tasks = rows["task"].nunique()
    over = f"over {plural(tasks, 'retention task')}"
    parts, lost = [], None
    if len(proved):
        runs = list(dict.fromkeys(proved["run"]))
        named = listed([f"“{evidence.labels[run]}”" for run in runs[:3]])
        more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        parts.append(f"{plural(len(runs), 'run')} proved to forget: {named}{more}.")
        lost = min((row for row in trades if row["run"] in runs), key=lambda row: row["kept"], default=None)
        if lost:
            parts.append(f"The largest loss {over} is {_kept(lost, evidence)}, by “{evidence.labels[lost['run']]}”.")
    else:
        parts.append("No run proved to have lost anything that its base could do.")
    case = next((row for row in trades if row["run"] in evidence.base_case_runs), None)
    if case and not (len(proved) and lost and lost["run"] == case["run"]):
        parts.append(f"The base case changed by {_kept(case, evidence)} {over}.")
    everyone = len(set(proved["run"])) == rows["run"].nunique()
    tone, short = ("unsure", "Some runs forgot") if len(proved) else ("good", "Nothing proved")
    if everyone:
        tone, short = "bad", "All runs forgot"
    return Answer(question, tone, short, " ".join(parts))


def _kept(row: dict[str, Any], evidence: Evidence) -> str:
    return f"{change(row['kept'], 'share', words=True)} ({between(row['kept_low'], row['kept_high'], 'share')})"


def axis_finding(evidence: Evidence, axis: str) -> str:
    """One sentence over an axis's pictures: what its values did on the main target."""
    rows = evidence.axes
    if rows.empty or evidence.target is None:
        return "Nothing to compare yet."
    rows = rows[(rows["axis"] == axis) & (rows["task"] == evidence.target)]
    told = rows[rows["verdict"] != ""]
    if told.empty:
        reasons = [reason for reason in rows.get("reason", pd.Series(dtype=str)).dropna()]
        return f"Not compared: {reasons[0]}." if reasons else "Nothing to compare yet."
    parts = []
    for _, row in told.iterrows():
        amount = change(row["difference"], evidence.unit, words=True)
        value, default = (axis_value(axis, row[key]) for key in ("value", "base_case_value"))
        if row["verdict"] == "can't tell":
            least = change(row["detectable"], evidence.unit).lstrip("+") + points(row["detectable"], evidence.unit)
            parts.append(f"{value} against {default}: can’t tell ({amount}; detectable from {least})")
        else:
            parts.append(f"{value} is {row['verdict']} than {default} ({amount})")
    return "; ".join(parts) + "."


def ship_lines(evidence: Evidence) -> list[dict[str, Any]]:
    """Per compared run: label, what it learned and kept, and the ship line with its reason."""
    return [
        {
            "label": evidence.labels[row["run"]],
            "gain": f"{change(row['gain'], evidence.unit, words=True)}",
            "gain_interval": between(row["gain_low"], row["gain_high"], evidence.unit),
            "kept": "–" if row["kept"] is None else change(row["kept"], "share", words=True),
            "kept_interval": "" if row["kept"] is None else between(row["kept_low"], row["kept_high"], "share"),
            "ship": row["ship"],
            "reason": row["ship_reason"],
            "pareto": row["pareto"],
        }
        for row in evidence.summary["trade_offs"]
    ]


def is_number(value: Any) -> bool:
    """Whether a table's cell holds a number."""
    return isinstance(value, int | float) and not math.isnan(value)
