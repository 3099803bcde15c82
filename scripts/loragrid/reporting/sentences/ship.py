"""The page's table of what each setting learned and kept, and whether to ship it."""

from typing import Any

from loragrid.formatting import between, change, decimals, detectable, listed, p_value, plain_name
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.statistics.paired_statistics import UNSURE

# Code of a `ship_reason` → its words, with the names of its tasks and the margin.
REASONS = {
    "worse_on_target": "worse on the target",
    "lost_more_than_margin": "lost more than {margin} on {tasks}",
    "gain_not_proved": "gain not proved",
    "no_score": "no score on {tasks}",
    "no_margin": "no margin is set for {tasks}",
    "retention_not_measured": "retention not measured",
    "worse_without_margin": "worse on {tasks}, for which no margin is set",
    "loss_likely": "a loss of more than {margin} is likely, but not proved, on {tasks}",
    "loss_not_excluded": "a loss of more than {margin} is not excluded on {tasks}",
    "no_loss_beyond_margin": "gain proved, no task lost more than {margin}",
}


def ship_lines(compared: ComparedStudy) -> list[dict[str, Any]]:
    """Per compared setting: label, what it learned and kept, and the decision with its reason."""
    return [_ship_line(row, compared) for row in compared.summary["trade_offs"]]


def ship_reason_text(reason: dict[str, Any]) -> str:
    """Why to ship a setting, or not, as a clause."""
    tasks = listed([plain_name(task) for task in reason["tasks"]])
    text = REASONS[reason["code"]].format(tasks=tasks, margin=f"{reason['margin'] * 100:g} points")
    if reason["code"] == "no_loss_beyond_margin" and tasks:
        text += f"; no margin is set for {tasks}, and no loss is proved there"
    return text


def _ship_line(row: dict[str, Any], compared: ComparedStudy) -> dict[str, Any]:
    worst, kept, kept_interval = "–", "–", ""
    if row.get("worst_task"):
        interval = between(row["worst_low"], row["worst_high"], "share")
        worst = f"{plain_name(row['worst_task'])} {_amount(row, 'worst', 'share')} ({interval})"
    if row["kept"] is not None:
        kept, kept_interval = _amount(row, "kept", "share"), between(row["kept_low"], row["kept_high"], "share")
    return {
        "label": compared.setting_labels[row["run"]],
        "seeds": row["seeds"],
        "gain": _amount(row, "gain", compared.unit),
        "gain_interval": between(row["gain_low"], row["gain_high"], compared.unit),
        "p": p_value(row["gain_p"]),
        "detectable": detectable(row["gain_detectable"], compared.unit) if row["gain_verdict"] == UNSURE else "–",
        "verdict": row["gain_verdict"],
        "kept": kept,
        "kept_interval": kept_interval,
        "worst": worst,
        "ship": row["ship"],
        "reason": ship_reason_text(row["ship_reason"]),
        "pareto": row["pareto"],
    }


def _amount(row: dict[str, Any], name: str, unit: str) -> str:
    return change(row[name], unit, words=True, places=decimals(row[f"{name}_low"], row[f"{name}_high"]))
