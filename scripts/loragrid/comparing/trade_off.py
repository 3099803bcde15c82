"""What each setting learned and what it forgot, and whether it should be shipped."""

from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.comparisons import Terms
from loragrid.comparing.item_tables import ItemTable
from loragrid.formatting import listed, plain_name

Row = dict[str, Any]


def trade_offs(comparisons: pd.DataFrame, tables: dict[str, ItemTable], target: str | None, terms: Terms) -> list[Row]:
    """Per compared setting: gain on the target task and change on the retention tasks, with intervals, whether any other
    setting is better in both (`pareto` False), and `ship` with its reason. Changes are positive where they are good.

    The mean change and the margin are for retention tasks that are shares of right answers; `unmargined` names the others.
    """
    if comparisons.empty or target is None:
        return []
    of_run: dict[str, list[Row]] = {}
    for row in comparisons.to_dict("records"):
        of_run.setdefault(row["run"], []).append(row)
    rows = []
    for run, found in of_run.items():
        gain = next((row for row in found if row["task"] == target), None)
        if gain is None or np.isnan(gain["difference"]):
            continue
        low, high = _improvement(gain, tables)
        row = {"run": run, "runs": gain["runs"], "seeds": gain["seeds"], "base": gain["base"]}
        row |= {"gain": gain["improvement"], "gain_low": low, "gain_high": high, "gain_verdict": gain["verdict"]}
        row |= {"gain_p": gain["p_corrected"], "gain_detectable": gain["detectable"]}
        row |= _kept(found, tables, terms)
        row["likely_lost"] = _likely_lost(found, tables, terms)
        row["ship"], row["ship_reason"] = _ship(row, found, tables, terms)
        rows.append(row)
    for row in rows:
        row["pareto"] = row["kept"] is not None and not any(_dominates(other, row) for other in rows)
    return rows


def _improvement(row: Row, tables: dict[str, ItemTable]) -> tuple[float, float]:
    """The row's interval, positive where it is good."""
    return (row["low"], row["high"]) if tables[row["task"]].higher_is_better else (-row["high"], -row["low"])


def _kept(found: list[Row], tables: dict[str, ItemTable], terms: Terms) -> Row:
    """Mean change over the retention tasks that are shares, and the task with the worst one.

    Tasks have different items, so their variances add; degrees of freedom after Satterthwaite 1946. None where such a task is
    missing: a mean over the others would be another quantity.
    """
    from scipy.stats import t as student

    retention = [table for table in tables.values() if table.group == "retention"]
    margined = [table.task for table in retention if table.unit == "share"]
    scored = {row["task"] for row in found if not np.isnan(row["difference"])}
    rows = [row for row in found if row["task"] in scored and row["task"] in margined]
    head = {
        "retention_tasks": len(rows),
        "retention_missing": [table.task for table in retention if table.task not in scored],
        "unmargined": [table.task for table in retention if table.unit != "share"],
    }
    worst = min(rows, key=lambda row: row["improvement"], default=None)
    if worst is not None:
        low, high = _improvement(worst, tables)
        head |= {"worst_task": worst["task"], "worst": worst["improvement"], "worst_low": low, "worst_high": high}
    if worst is None or len(rows) < len(margined):
        return head | {"kept": None, "kept_low": None, "kept_high": None}
    variances, df = (np.array([row[name] for row in rows], dtype=float) for name in ("stderr", "df"))
    total = (variances := variances**2).sum()
    df = total**2 / (variances**2 / df).sum() if total > 0 else 1.0
    mean = float(np.mean([row["improvement"] for row in rows]))
    half = float(student.ppf(0.5 + terms.confidence / 2, df) * np.sqrt(total) / len(rows))
    return head | {"kept": mean, "kept_low": mean - half, "kept_high": mean + half}


def _dominates(other: Row, row: Row) -> bool:
    if other["kept"] is None:
        return False
    at_least = other["gain"] >= row["gain"] and other["kept"] >= row["kept"]
    return at_least and (other["gain"] > row["gain"] or other["kept"] > row["kept"])


def _likely_lost(found: list[Row], tables: dict[str, ItemTable], terms: Terms) -> list[str]:
    """Retention tasks, shares of right answers, whose interval lies under minus the margin without a proof after correction."""
    return [
        row["task"]
        for row in found
        if row["group"] == "retention"
        and tables[row["task"]].unit == "share"
        and row["verdict"] == "can't tell"
        and _improvement(row, tables)[1] < -terms.retention_margin
    ]


def _ship(row: Row, found: list[Row], tables: dict[str, ItemTable], terms: Terms) -> tuple[str, str]:
    """Ship when the gain is proved and on every single retention task the interval ends above minus the margin; do not when
    a loss on the target is proved, or one on a retention task whose interval lies under minus the margin; else it can not be
    told. Proved is what stands after the correction for all comparisons, as everywhere on the page.

    A task in another unit than shares has no margin: proved worse there, only a person can tell.
    """
    if row["gain_verdict"] == "worse":
        return "don't ship", "worse on the target"
    retention = [r for r in found if r["group"] == "retention" and not np.isnan(r["difference"])]
    intervals = {r["task"]: _improvement(r, tables) for r in retention if tables[r["task"]].unit == "share"}
    worse = {r["task"] for r in retention if r["verdict"] == "worse"}
    if lost := [task for task, (_, high) in intervals.items() if high < -terms.retention_margin and task in worse]:
        return "don't ship", f"lost more than the margin on {_names(lost)}"
    if row["gain_verdict"] != "better":
        return "can't tell", "gain not proved"
    if row["retention_missing"]:
        return "can't tell", f"no score on {_names(row['retention_missing'])}"
    if not intervals:
        return "can't tell", f"no margin for {_names(row['unmargined'])}" if row[
            "unmargined"
        ] else "retention not measured"
    if unlimited := [task for task in row["unmargined"] if task in worse]:
        return "can't tell", f"worse on {_names(unlimited)}, for which no margin is set"
    if row["likely_lost"]:
        return "can't tell", f"a loss beyond the margin is likely, not proved, on {_names(row['likely_lost'])}"
    open_ = [task for task, (low, _) in intervals.items() if low < -terms.retention_margin]
    if open_:
        return "can't tell", f"a loss beyond the margin is not excluded on {_names(open_)}"
    beside = f"; no margin for {_names(row['unmargined'])}, which is not proved worse" if row["unmargined"] else ""
    return "ship", f"gain proved, no task lost more than the margin{beside}"


def _names(tasks: list[str]) -> str:
    return listed([plain_name(task) for task in tasks])
