"""The report's answer to "what was forgotten?", and its three answers together."""

from typing import Any

import pandas as pd

from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.comparing.trade_off import SHIP
from loragrid.formatting import between, change, change_beside, listed, plain_name, plural
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.sentences.axis_findings import what_mattered
from loragrid.reporting.sentences.findings import Headline, did_it_help, not_scored, start
from loragrid.reporting.sentences.verdicts import differing, of_adapters, of_settings
from loragrid.statistics.paired_statistics import WORSE

MOST_NAMED = 3  # settings in one sentence; the tables have all
SMALL_COUNTS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
QUESTION = "What was forgotten?"


def answers(compared: ComparedStudy) -> list[Headline]:
    """The three answers at the top of the page."""
    if compared.target is None or compared.comparisons.empty:
        text = "No run has been scored beside its untrained base yet, so nothing can be said."
        return [Headline("Did fine-tuning help?", "unsure", "Can’t tell", f"{text}{not_scored(compared)}")]
    return [did_it_help(compared), what_mattered(compared), what_was_forgotten(compared)]


def what_was_forgotten(compared: ComparedStudy) -> Headline:
    """Which settings did worse than their base on the retention tasks together; single tasks are detail."""
    rows = compared.of_runs
    rows = rows[(rows["group"] == "retention") & (rows["verdict"] != "")]
    if rows.empty:
        text = "The study names no retention task, or none could be compared."
        return Headline(QUESTION, "unsure", "Not measured", text)
    pooled = rows[rows["task"] == POOLED_RETENTION]
    single = rows[rows["task"] != POOLED_RETENTION]
    if pooled.empty:
        text = f"No retention task is a share of right answers, so there is no mean over them. {_single_tasks(single)}"
        return Headline(QUESTION, "unsure", "Can’t tell", text.strip())
    settings, adapters = of_settings(pooled), of_adapters(pooled)
    if settings.empty:
        tone, short, text = _of_adapters(adapters, compared)
    else:
        tone, short, text = _of_settings(settings, compared)
        if lost := _lost(adapters):
            # A setting that kept everything says nothing of the adapters that did not.
            tone, short = ("adapters", "Some adapters lost") if tone == "good" else (tone, short)
            text += f" {_worse_sentence(lost, 'adapter of one seed', compared)}"
    parts = [text, _base_case(compared), _single_tasks(of_settings(single)), _fit_to_ship(compared)]
    return Headline(QUESTION, tone, short, " ".join(part for part in parts if part))


def _of_settings(rows: pd.DataFrame, compared: ComparedStudy) -> tuple[str, str, str]:
    """Tone, short answer and a sentence on the pooled retention of settings."""
    lost = list(rows.loc[rows["verdict"] == WORSE, "run"])
    points = _margin(compared)
    if lost:
        everyone = len(lost) == len(rows)
        tone, short = ("bad", "All settings forgot") if everyone else ("unsure", "Some settings forgot")
        return tone, short, _worse_sentence(lost, "setting", compared)
    over = f"on {_tasks(compared)}"
    if (rows["low"] >= -compared.summary["terms"]["retention_margin"]).all():
        return "good", f"At most {points}", f"Every interval {over} excludes a loss of more than {points}."
    text = f"No setting is proved to have lost {over}, but {_reach(rows, compared)}."
    return "unsure", "Nothing proved", text


def _of_adapters(rows: pd.DataFrame, compared: ComparedStudy) -> tuple[str, str, str]:
    """Tone, short answer and a sentence where every setting has one adapter only."""
    lost = _lost(rows)
    if lost:
        short = "All adapters lost" if len(lost) == len(rows) else "Some adapters lost"
        return "adapters", short, _worse_sentence(lost, "adapter", compared)
    over = f"on {_tasks(compared)}"
    text = f"No adapter is shown to score lower than its untrained base {over}, but {_reach(rows, compared)}."
    return "unsure", "Nothing shown", text


def _lost(rows: pd.DataFrame) -> list[str]:
    found = differing(rows)
    return list(found.loc[found["improvement"] < 0, "run"])


def _margin(compared: ComparedStudy) -> str:
    return f"{compared.summary['terms']['retention_margin'] * 100:g} points"


def _tasks(compared: ComparedStudy) -> str:
    """The mean over 3 retention tasks, without those whose score is not a share of right answers."""
    kept = [name for name, task in compared.summary["tasks"].items() if task["group"] == "retention"]
    left_out = [name for name in kept if compared.units[name] != "share"]
    count = len(kept) - len(left_out)
    text = "the retention task" if count == 1 else f"the mean over {plural(count, 'retention task')}"
    if left_out:
        text += f" (without {listed([plain_name(name) for name in left_out])}, in another unit)"
    return text


def _worse_sentence(runs: list[str], noun: str, compared: ComparedStudy) -> str:
    """Two settings did worse on the mean over 3 retention tasks: learning rate 0.1 and rank 64."""
    count = str(len(runs))
    if len(runs) < len(SMALL_COUNTS):
        count = SMALL_COUNTS[len(runs)]
    named = [_name(run, compared) for run in runs[:MOST_NAMED]]
    if len(runs) > MOST_NAMED:
        named.append(f"{len(runs) - MOST_NAMED} more")
    nouns = noun if len(runs) == 1 else noun.replace("adapter", "adapters").replace("setting", "settings")
    verb = "did worse" if noun == "setting" else "scored lower than the base"
    return f"{count} {nouns} {verb} on {_tasks(compared)}: {listed(named)}."


def _name(run: str, compared: ComparedStudy) -> str:
    """The setting's label; in quotes where it is a list itself."""
    label = compared.setting_labels[run]
    return f"“{label}”" if "," in label else label


def _reach(rows: pd.DataFrame, compared: ComparedStudy) -> str:
    """How large a loss the intervals still allow."""
    row = rows.loc[rows["low"].idxmin()]
    reach = change(row["low"], "share", words=True)
    return f"the intervals reach down to {reach} ({_name(row['run'], compared)})"


def _base_case(compared: ComparedStudy) -> str:
    """The pooled change of the base case."""
    trades = [row for row in compared.summary["trade_offs"] if row["kept"] is not None]
    case = next((row for row in trades if row["run"] in compared.base_case_runs), None)
    return f"The base case changed by {_kept(case)}." if case else ""


def _kept(row: dict[str, Any]) -> str:
    amount = change_beside(row["kept"], row["kept_low"], row["kept_high"], "share")
    return f"{amount} ({between(row['kept_low'], row['kept_high'], 'share')})"


def _single_tasks(rows: pd.DataFrame) -> str:
    """On how many settings each single task is proved worse."""
    worse = rows[rows["verdict"] == WORSE]
    if worse.empty:
        return ""
    counts = [f"{len(found)} worse on {plain_name(task)}" for task, found in worse.groupby("task", sort=False)]
    return f"Single tasks (exploratory): {listed(counts)}."


def _fit_to_ship(compared: ComparedStudy) -> str:
    if not compared.judges_settings:
        return "Whether to ship a setting takes a second seed."
    of_runs = [row for row in compared.summary["trade_offs"] if row["run"] not in compared.adopted]
    count, ships = len(of_runs), sum(row["ship"] == SHIP for row in of_runs)
    verb = "are" if ships > 1 else "is"
    return f"{start(str(ships or 'none'))} of {count} {verb} shown fit to ship."
