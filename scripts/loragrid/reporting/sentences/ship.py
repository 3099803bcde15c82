"""The page's table of what each setting learned and kept, and whether to ship it."""

from typing import Any

from loragrid.formatting import (
    between,
    change_beside,
    detectable,
    listed,
    p_value,
    plain_name,
    score,
    whole,
)
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.statistics.paired_statistics import UNSURE

# Code of a `ship_reason` → its words, with the names of its tasks and the margin.
REASONS = {
    "one_seed": "one seed: another may forget more",
    "worse_on_target": "worse on the target",
    "lost_more_than_margin": "lost more than {margin} of mean retention",
    "gain_not_proved": "gain not proved",
    "no_score": "no score on {tasks}",
    "no_margin": "no margin is set for {tasks}",
    "retention_not_measured": "retention not measured",
    "loss_not_excluded": "a loss of more than {margin} of mean retention is not excluded",
    "no_loss_beyond_margin": "gain proved, mean retention lost no more than {margin}",
}


def ship_lines(compared: ComparedStudy) -> list[dict[str, Any]]:
    """Per compared setting: label, what it learned and kept, and the decision with its reason."""
    return [_ship_line(row, compared) for row in compared.summary["trade_offs"]]


def ship_reason_text(reason: dict[str, Any]) -> str:
    """Why to ship a setting, or not, as a clause."""
    tasks = listed([plain_name(task) for task in reason["tasks"]])
    text = REASONS[reason["code"]].format(tasks=tasks, margin=f"{reason['margin'] * 100:g} points")
    if reason["code"] == "no_loss_beyond_margin" and tasks:
        text += f"; no margin is set for {tasks}"
    return text


def _ship_line(row: dict[str, Any], compared: ComparedStudy) -> dict[str, Any]:
    kept, kept_interval = "–", ""
    if row["kept"] is not None:
        kept, kept_interval = _amount(row, "kept", "share"), between(row["kept_low"], row["kept_high"], "share")
    finds = ""
    if row["gain_verdict"] == UNSURE and row["gain_detectable"] is not None:
        finds = f"finds {detectable(row['gain_detectable'], compared.unit)} or more"
    return {
        "label": compared.setting_labels[row["run"]],
        "seeds": row["seeds"],
        "gain": _amount(row, "gain", compared.unit),
        "gain_interval": between(row["gain_low"], row["gain_high"], compared.unit),
        "p": p_value(row["gain_p"]),
        "finds": finds,
        "verdict": row["gain_verdict"],
        "kept": kept,
        "kept_interval": kept_interval,
        "kept_verdict": row["kept_verdict"] or "",
        "warnings": listed([plain_name(task) for task in row["warnings"]]) or "–",
        "ship": row["ship"],
        "reason": ship_reason_text(row["ship_reason"]),
        "pareto": row["pareto"],
    }


def _amount(row: dict[str, Any], name: str, unit: str) -> str:
    return change_beside(row[name], row[f"{name}_low"], row[f"{name}_high"], unit)


def margin_sentence(compared: ComparedStudy) -> str:
    """Whether a model that forgot nothing would pass the margin, and what it would take."""
    found = compared.summary["margin_demands"]
    if found is None:
        return ""
    items = f"{whole(found['items'])} independent retention items"
    if found["at_least"]:
        return f"With one seed no setting can pass. {_with_two_seeds(found, items, compared)}"
    chance = score(found["pass_if_unchanged"], "share")
    text = f"A model that forgot nothing passes with a probability of {chance} ({items}, {found['seeds']} seeds)"
    if found["pass_if_unchanged"] >= compared.summary["terms"]["power"]:
        return f"{text}."
    return f"{text}; {compared.power} takes {_ways(found)}."


def _ways(found: dict[str, Any]) -> str:
    """What would be enough: items, seeds, or more of both."""
    ways = []
    if found["items_needed"] is not None:
        ways.append(f"about {_rounded(found['items_needed'])} items")
    if found["items_at_twice_the_seeds"] is not None:
        ways.append(f"{_rounded(found['items_at_twice_the_seeds'])} with {2 * found['seeds']} seeds")
    if found["seeds_needed"] is not None:
        ways.append(f"{found['seeds_needed']} seeds with these items")
    return listed(ways, "or") or "far more items and seeds"


def _rounded(count: int) -> str:
    """A count with two significant digits: a prediction has no more."""
    return whole(float(f"{count:.2g}"))


def _with_two_seeds(found: dict[str, Any], items: str, compared: ComparedStudy) -> str:
    """What two seeds would demand at the least: their spread is unknown yet."""
    if found["items_needed"] is None:
        return f"With two, {items} would be far too few for this margin."
    needed = _rounded(found["items_needed"])
    return (
        f"With two, a model that forgot nothing passes with a probability of {compared.power} from about {needed} "
        f"independent retention items on, or more where seeds differ; there are {whole(found['items'])}."
    )
