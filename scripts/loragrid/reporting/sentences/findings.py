"""The report's answer to "did fine-tuning help?", which claims no more than its tests can show."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from loragrid.comparing.contrasts import ADAPTERS
from loragrid.formatting import (
    between,
    change_beside,
    decimals,
    detectable,
    listed,
    p_value,
    plain_name,
    plural,
    score,
)
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.sentences.verdicts import (
    ONE_SEED_COVERS,
    differing,
    floor_text,
    items_text,
    of_adapters,
    of_settings,
    open_text,
)
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

    `tone` is good, bad, adapters or unsure and colours the `short` answer, which says the same.
    """

    question: str
    tone: str
    short: str
    text: str


def difference(row: Any, unit: str) -> str:
    """A row's difference with its unit and the decimals that its interval deserves."""
    return change_beside(row["difference"], row["low"], row["high"], unit)


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
        text = f"No run could be compared with its untrained base on the target.{rest}"
        return Headline(question, "unsure", "Can’t tell", text)
    settings, adapters = of_settings(rows), of_adapters(rows)
    name = f"“{plain_name(compared.target)}”"
    if not compared.higher_is_better:
        name += " (lower is better)"
    beside = f"{_detail(rows, compared)}{_other_targets(compared)}{rest}"
    if settings.empty:
        tone, short = _short_of_adapters(adapters, compared)
        return Headline(question, tone, short, f"{_adapters_count(adapters, name)} {beside}")
    tone, short, text = _of_settings(settings, name, compared)
    if len(adapters):
        text += f" {_adapters_count(adapters, 'it', ' of one seed')}"
        if tone == "good" and (differing(adapters)["improvement"] < 0).any():
            tone, short = "unsure", "It depends"
    return Headline(question, tone, short, f"{text} {beside}")


def _of_settings(rows: pd.DataFrame, name: str, compared: ComparedStudy) -> tuple[str, str, str]:
    """Tone, short answer and a sentence on how many settings beat their base."""
    better, worse = rows[rows["verdict"] == BETTER], rows[rows["verdict"] == WORSE]
    everyone = plural(len(rows), "setting")
    harm = f", {len(worse)} did worse" if len(worse) else ""
    if len(better):
        tone, short = "unsure", "It depends"
        if not len(worse):
            tone, short = "good", _how_often(better, rows, compared)
        their = "its" if len(better) == 1 else "their"
        return tone, short, f"{len(better)} of {everyone} beat {their} untrained base on {name}{harm}."
    if len(worse):
        return "bad", "No", f"None of {everyone} beat its untrained base on {name}{harm}."
    return "unsure", "Can’t tell", f"None of {everyone} is proved to differ from its untrained base on {name}."


def _how_often(better: pd.DataFrame, rows: pd.DataFrame, compared: ComparedStudy) -> str:
    # One gain among many settings is no answer to "did it help", unless it is the base case's.
    case = better["run"].isin(compared.base_case_runs).any()
    return "Yes" if case or 2 * len(better) > len(rows) else "Some settings did"


def _short_of_adapters(rows: pd.DataFrame, compared: ComparedStudy) -> tuple[str, str]:
    """Tone and short answer where each setting has one adapter only."""
    found = differing(rows)
    gained, lost = found[found["improvement"] > 0], found[found["improvement"] < 0]
    if found.empty:
        return "unsure", "Can’t tell"
    if gained.empty:
        return "adapters", "Not these adapters"
    if len(lost):
        return "adapters", "Some adapters gained"
    return "adapters", "These adapters gained" if 2 * len(gained) > len(rows) else "Some adapters gained"


def _adapters_count(rows: pd.DataFrame, name: str, which: str = "") -> str:
    """How many adapters differ from their base, and in which direction."""
    found = differing(rows)
    everyone = plural(len(rows), "adapter") + which
    if found.empty:
        return f"None of {everyone} is shown to differ from its untrained base on {name}."
    higher, lower = (found["difference"] > 0).sum(), (found["difference"] < 0).sum()
    ways = listed([f"{count} {word}" for count, word in ((higher, "higher"), (lower, "lower")) if count])
    their, verb = ("its", "differs") if len(found) == 1 else ("their", "differ")
    return f"{len(found)} of {everyone} {verb} from {their} base on {name}: {ways}."


def _other_targets(compared: ComparedStudy) -> str:
    """How many settings or adapters stand apart on the other tasks that training should improve."""
    rows = compared.of_runs
    rows = rows[(rows["group"] == "target") & (rows["task"] != compared.target) & (rows["verdict"] != "")]
    parts = []
    for task, found in rows.groupby("task", sort=False):
        settings = of_settings(found)
        if len(settings):
            parts.append(f"{plain_name(task)}, {(settings['verdict'] == BETTER).sum()} of {len(settings)} better")
        else:
            parts.append(f"{plain_name(task)}, {len(differing(found))} of {len(found)} differ")
    return f" Exploratory: on {'; on '.join(parts)}." if parts else ""


def _detail(rows: pd.DataFrame, compared: ComparedStudy) -> str:
    """The base case's row in full; if it was not compared, the first row of the grid."""
    case = rows[rows["run"].isin(compared.base_case_runs)]
    row = (case if len(case) else rows).iloc[0]
    who = "The base case" if len(case) else start(compared.setting_labels[row["run"]])
    places = decimals(row["low"], row["high"])
    before, after = (score(row[name], compared.unit, places) for name in ("reference_score", "score"))
    seeds = f" (mean of {row['seeds']} seeds)" if row["seeds"] > 1 else ""
    covers = f", {ONE_SEED_COVERS}" if row["level"] == ADAPTERS else ""
    text = (
        f"{who} went from {before} to {after}{seeds} on {_items(row)}: {difference(row, compared.unit)} "
        f"({compared.interval} {between(row['low'], row['high'], compared.unit)}{covers}; "
        f"corrected p {p_value(row['p_corrected'])})."
    )
    # What a test might have missed says nothing beside a proved difference.
    if row["verdict"] != UNSURE:
        return text
    return f"{text} Can’t tell: {_power(row, compared)}."


def _items(row: pd.Series) -> str:
    items, requests = items_text(row)
    return f"{items} items" + (f" ({requests} requests)" if requests else "")


def _power(row: pd.Series, compared: ComparedStudy) -> str:
    if pd.isna(row["detectable"]):
        return open_text(row, compared.unit)
    smallest = detectable(row["detectable"], compared.unit)
    text = f"this test finds {smallest} or more with a probability of {compared.power}"
    limits = floor_text(row, compared.unit)
    return f"{text}; {limits}" if limits else text
