"""What each setting learned and what it forgot, and whether it should be shipped.

Shipping is a question of equivalence: the interval of pooled retention, which holds the spread between
seeds, must stay above minus the margin (Schuirmann 1987, Journal of Pharmacokinetics and
Biopharmaceutics 15:657). Single tasks are warnings.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.contrasts import SETTING
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.comparing.terms import Terms
from loragrid.statistics.paired_statistics import BETTER, UNSURE, WORSE

Row = dict[str, Any]
SHIP, DO_NOT_SHIP = "ship", "don't ship"
# Codes of `ship_reason`; some come with the tasks that decided.
ONE_SEED = "one_seed"
WORSE_ON_TARGET = "worse_on_target"
LOST_MORE_THAN_MARGIN = "lost_more_than_margin"
GAIN_NOT_PROVED = "gain_not_proved"
NO_SCORE = "no_score"
NO_MARGIN = "no_margin"
RETENTION_NOT_MEASURED = "retention_not_measured"
LOSS_NOT_EXCLUDED = "loss_not_excluded"
NO_LOSS_BEYOND_MARGIN = "no_loss_beyond_margin"  # its tasks are those without a margin
# The decision that each code means; the others leave it open.
DECISIONS = {
    WORSE_ON_TARGET: DO_NOT_SHIP,
    LOST_MORE_THAN_MARGIN: DO_NOT_SHIP,
    NO_LOSS_BEYOND_MARGIN: SHIP,
}


def trade_offs(comparisons: pd.DataFrame, tables: dict[str, ItemTable], target: str | None, terms: Terms) -> list[Row]:
    """Per compared setting its gain, its pooled change on the retention tasks, and whether to `ship` it.

    Changes are positive where they are good, and each has its interval. `pareto` is False where
    another setting is at least as good in both and better in one. `unmargined` names the retention
    tasks that are not shares of right answers, `warnings` those on which the setting did worse or
    whose interval is wholly beyond the margin.
    """
    if comparisons.empty or target is None:
        return []
    of_run: dict[str, list[Row]] = {}
    for row in comparisons.to_dict("records"):
        of_run.setdefault(row["run"], []).append(row)
    rows = []
    for found in of_run.values():
        gain = next((row for row in found if row["task"] == target), None)
        if gain is not None and not np.isnan(gain["difference"]):
            rows.append(_trade_off(gain, found, tables, terms))
    for row in rows:
        row["pareto"] = row["kept"] is not None and not any(_dominates(other, row) for other in rows)
    return rows


def fit_to_ship(rows: Sequence[Row], adopted: Collection[str]) -> list[Row]:
    """Those of `trade_offs` that may be shipped, the surest gain first, without the `adopted` adapters."""
    fit = [row for row in rows if row["ship"] == SHIP and row["run"] not in adopted]
    return sorted(fit, key=lambda row: -row["gain_low"])


def _trade_off(gain: Row, found: list[Row], tables: dict[str, ItemTable], terms: Terms) -> Row:
    low, high = _improvement(gain, tables[gain["task"]].higher_is_better)
    row = {name: gain[name] for name in ("run", "runs", "seeds", "base", "level")}
    row |= {"gain": gain["improvement"], "gain_low": low, "gain_high": high, "gain_verdict": gain["verdict"]}
    row |= {"gain_p": gain["p_corrected"], "gain_detectable": gain["detectable"]}
    row |= _kept(found, tables)
    row["warnings"] = _warnings(found, tables, terms.retention_margin)
    code, tasks = _decide(row, terms.retention_margin)
    row["ship"] = DECISIONS.get(code, UNSURE)
    row["ship_reason"] = {"code": code, "tasks": tasks, "margin": terms.retention_margin}
    return row


def _improvement(row: Row, higher_is_better: bool) -> tuple[float, float]:
    """The row's interval, positive where it is good."""
    return (row["low"], row["high"]) if higher_is_better else (-row["high"], -row["low"])


def _kept(found: list[Row], tables: dict[str, ItemTable]) -> Row:
    """The pooled change on the retention tasks that are shares, and the task that lost most.

    The pooled change is None where a task is missing: a mean over the others would be another
    quantity.
    """
    retention = {name: table for name, table in tables.items() if table.group == "retention"}
    scored = {row["task"] for row in found if not np.isnan(row["difference"])}
    rows = [row for row in found if row["task"] in scored and row["task"] in retention]
    shares = [row for row in rows if retention[row["task"]].unit == "share"]
    head: Row = {
        "retention_tasks": len(shares),
        "retention_missing": [task for task in retention if task not in scored],
        "unmargined": [task for task, table in retention.items() if table.unit != "share"],
    }
    worst = min(shares, key=lambda row: row["improvement"], default=None)
    if worst is not None:
        low, high = worst["low"], worst["high"]
        head |= {"worst_task": worst["task"], "worst": worst["improvement"], "worst_low": low, "worst_high": high}
    pooled = next((row for row in found if row["task"] == POOLED_RETENTION), None)
    if pooled is None or np.isnan(pooled["difference"]):
        return head | dict.fromkeys(("kept", "kept_low", "kept_high", "kept_p", "kept_verdict", "kept_stderr"))
    return head | {
        "kept": pooled["improvement"],
        "kept_low": pooled["low"],
        "kept_high": pooled["high"],
        "kept_p": pooled["p_corrected"],
        "kept_verdict": pooled["verdict"],
        "kept_stderr": pooled["stderr"],
    }


def _dominates(other: Row, row: Row) -> bool:
    if other["kept"] is None:
        return False
    at_least = other["gain"] >= row["gain"] and other["kept"] >= row["kept"]
    return at_least and (other["gain"] > row["gain"] or other["kept"] > row["kept"])


def _warnings(found: list[Row], tables: dict[str, ItemTable], margin: float) -> list[str]:
    """Retention tasks on which the setting did worse, or whose whole interval is beyond the margin."""
    warned = []
    for row in found:
        table = tables.get(row["task"])
        if table is None or table.group != "retention" or np.isnan(row["difference"]):
            continue
        _, high = _improvement(row, table.higher_is_better)
        if row["verdict"] == WORSE or (table.unit == "share" and high < -margin):
            warned.append(row["task"])
    return warned


def _decide(row: Row, margin: float) -> tuple[str, list[str]]:
    """The code of the first rule that applies, with its tasks."""
    # Another seed of the setting may have learned or forgotten something else.
    if row["level"] != SETTING:
        return ONE_SEED, []
    if row["gain_verdict"] == WORSE:
        return WORSE_ON_TARGET, []
    if row["kept_verdict"] == WORSE and row["kept_high"] < -margin:
        return LOST_MORE_THAN_MARGIN, row["warnings"]
    # From here on no proof speaks against shipping; the first open question is the reason to wait.
    if row["gain_verdict"] != BETTER:
        return GAIN_NOT_PROVED, []
    if row["retention_missing"]:
        return NO_SCORE, row["retention_missing"]
    if row["kept"] is None and row["unmargined"]:
        return NO_MARGIN, row["unmargined"]
    if row["kept"] is None:
        return RETENTION_NOT_MEASURED, []
    if row["kept_low"] < -margin:
        return LOSS_NOT_EXCLUDED, row["warnings"]
    return NO_LOSS_BEYOND_MARGIN, row["unmargined"]
