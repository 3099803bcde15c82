"""What each run learned and what it forgot, and whether it should be shipped."""

from typing import Any

import numpy as np
import pandas as pd

from study.comparisons import Terms
from study.item_tables import ItemTable


def trade_offs(
    comparisons: pd.DataFrame, tables: dict[str, ItemTable], target: str | None, terms: Terms
) -> list[dict[str, Any]]:
    """Per compared run: gain on the target task, mean change over the retention tasks, both with intervals, whether any
    other run is better in both (`pareto` False), and `ship` with its reason. Changes are positive where they are good."""
    if comparisons.empty or target is None:
        return []
    retention = [t.task for t in tables.values() if t.group == "retention" and t.unit == "share"]
    by_run: dict[str, list[dict[str, Any]]] = {}
    for row in comparisons.to_dict("records"):
        by_run.setdefault(row["run"], []).append(row)
    rows = []
    for run, of_run in by_run.items():
        gain = next((row for row in of_run if row["task"] == target), None)
        if gain is None or np.isnan(gain["difference"]):
            continue
        sides = (gain["low"], gain["high"]) if tables[target].higher_is_better else (-gain["high"], -gain["low"])
        row = {
            "run": run,
            "base": gain["base"],
            "gain": gain["improvement"],
            "gain_low": sides[0],
            "gain_high": sides[1],
            "gain_verdict": gain["verdict"],
        }
        kept = [row for row in of_run if row["task"] in retention and not np.isnan(row["difference"])]
        rows.append(row | _kept(kept, len(retention), terms))
    for row in rows:
        row["pareto"] = row["kept"] is not None and not any(_dominates(other, row) for other in rows)
        row["ship"], row["ship_reason"] = _ship(row, terms)
    return rows


def _kept(rows: list[dict[str, Any]], tasks: int, terms: Terms) -> dict[str, Any]:
    """Mean change over the retention tasks. Tasks have different items, so their variances add; degrees of freedom after
    Satterthwaite 1946. None where a retention task is missing: a mean over other tasks would be another quantity."""
    from scipy.stats import t as student

    if tasks == 0 or len(rows) < tasks:
        return {"kept": None, "kept_low": None, "kept_high": None, "retention_tasks": len(rows)}
    variances = np.array([row["stderr"] for row in rows]) ** 2
    units = np.array([row["units"] for row in rows])
    total = variances.sum()
    df = total**2 / (variances**2 / (units - 1)).sum() if total > 0 else 1.0
    mean = float(np.mean([row["improvement"] for row in rows]))
    half = float(student.ppf(0.5 + terms.confidence / 2, df) * np.sqrt(total) / len(rows))
    return {"kept": mean, "kept_low": mean - half, "kept_high": mean + half, "retention_tasks": len(rows)}


def _dominates(other: dict[str, Any], row: dict[str, Any]) -> bool:
    if other["kept"] is None:
        return False
    at_least = other["gain"] >= row["gain"] and other["kept"] >= row["kept"]
    return at_least and (other["gain"] > row["gain"] or other["kept"] > row["kept"])


def _ship(row: dict[str, Any], terms: Terms) -> tuple[str, str]:
    """Ship when the gain is proved and the interval of the retention change lies above minus the margin; do not when the
    gain's interval lies at or under zero, or that of retention under minus the margin; else it can not be told."""
    if row["gain_verdict"] == "worse" or row["gain_high"] <= 0:
        return "don't ship", "no gain"
    if row["kept"] is not None and row["kept_high"] < -terms.retention_margin:
        return "don't ship", "forgot more than the margin"
    if row["gain_verdict"] != "better":
        return "can't tell", "gain not proved"
    if row["kept"] is None:
        return "can't tell", "retention not measured"
    if row["kept_low"] >= -terms.retention_margin:
        return "ship", "gain proved, nothing lost beyond the margin"
    return "can't tell", "retention too uncertain"
