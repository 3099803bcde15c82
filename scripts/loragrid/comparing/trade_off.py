"""What each setting learned and what it forgot, and whether it should be shipped."""

from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.comparisons import Terms
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.statistics.paired_statistics import BETTER, UNSURE, WORSE

Row = dict[str, Any]
SHIP, DO_NOT_SHIP = "ship", "don't ship"
# Codes of `ship_reason`; most come with the tasks that decided.
WORSE_ON_TARGET = "worse_on_target"
LOST_MORE_THAN_MARGIN = "lost_more_than_margin"
GAIN_NOT_PROVED = "gain_not_proved"
NO_SCORE = "no_score"
NO_MARGIN = "no_margin"
RETENTION_NOT_MEASURED = "retention_not_measured"
WORSE_WITHOUT_MARGIN = "worse_without_margin"
LOSS_LIKELY = "loss_likely"
LOSS_NOT_EXCLUDED = "loss_not_excluded"
NO_LOSS_BEYOND_MARGIN = "no_loss_beyond_margin"  # its tasks are those without a margin
# The decision that each code means; the others leave it open.
DECISIONS = {
    WORSE_ON_TARGET: DO_NOT_SHIP,
    LOST_MORE_THAN_MARGIN: DO_NOT_SHIP,
    NO_LOSS_BEYOND_MARGIN: SHIP,
}


def trade_offs(comparisons: pd.DataFrame, tables: dict[str, ItemTable], target: str | None, terms: Terms) -> list[Row]:
    """Per compared setting its gain, its change on the retention tasks, and whether to `ship` it.

    Changes are positive where they are good, and each has its interval. `pareto` is False where
    another setting is at least as good in both and better in one. The mean change and the margin
    are for retention tasks that are shares of right answers; `unmargined` names the others.
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


def _trade_off(gain: Row, found: list[Row], tables: dict[str, ItemTable], terms: Terms) -> Row:
    low, high = _improvement(gain, tables)
    row = {"run": gain["run"], "runs": gain["runs"], "seeds": gain["seeds"], "base": gain["base"]}
    row |= {"gain": gain["improvement"], "gain_low": low, "gain_high": high, "gain_verdict": gain["verdict"]}
    row |= {"gain_p": gain["p_corrected"], "gain_detectable": gain["detectable"]}
    row |= _kept(found, tables, terms)
    row["likely_lost"] = _likely_lost(found, tables, terms)
    row["ship"], row["ship_reason"] = _ship(row, found, tables, terms)
    return row


def _improvement(row: Row, tables: dict[str, ItemTable]) -> tuple[float, float]:
    """The row's interval, positive where it is good."""
    if tables[row["task"]].higher_is_better:
        return row["low"], row["high"]
    return -row["high"], -row["low"]


def _kept(found: list[Row], tables: dict[str, ItemTable], terms: Terms) -> Row:
    """The mean change over the retention tasks that are shares, and the task that lost most.

    The mean is None where a task is missing: a mean over the others would be another quantity.
    """
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
        return head | {"kept": None, "kept_low": None, "kept_high": None, "kept_p": None}
    return head | mean_change(rows, terms.confidence)


def mean_change(rows: list[Row], confidence: float) -> Row:
    """The mean improvement over tasks with its t interval and the p value of no change.

    Degrees of freedom after Satterthwaite 1946, Biometrics Bulletin 2:110.
    """
    from scipy.stats import t as student

    # Different tasks have different items, so their errors are independent and their variances add.
    variances = np.array([row["stderr"] for row in rows], dtype=float) ** 2
    df = np.array([row["df"] for row in rows], dtype=float)
    total = variances.sum()
    df_of_sum = 1.0
    if total > 0:
        df_of_sum = total**2 / (variances**2 / df).sum()
    mean, stderr = float(np.mean([row["improvement"] for row in rows])), float(np.sqrt(total)) / len(rows)
    half = float(student.ppf(0.5 + confidence / 2, df_of_sum)) * stderr
    p = float(2 * student.sf(abs(mean) / stderr, df_of_sum)) if stderr > 0 else 1.0
    return {"kept": mean, "kept_low": mean - half, "kept_high": mean + half, "kept_p": p}


def _dominates(other: Row, row: Row) -> bool:
    if other["kept"] is None:
        return False
    at_least = other["gain"] >= row["gain"] and other["kept"] >= row["kept"]
    return at_least and (other["gain"] > row["gain"] or other["kept"] > row["kept"])


def _likely_lost(found: list[Row], tables: dict[str, ItemTable], terms: Terms) -> list[str]:
    """Retention tasks with a likely loss beyond the margin.

    Their whole interval is below minus the margin, but after the correction no loss is proved.
    """
    return [
        row["task"]
        for row in found
        if row["group"] == "retention"
        and tables[row["task"]].unit == "share"
        and row["verdict"] == UNSURE
        and _improvement(row, tables)[1] < -terms.retention_margin
    ]


def _ship(row: Row, found: list[Row], tables: dict[str, ItemTable], terms: Terms) -> tuple[str, Row]:
    """The decision and its reason: a code, the tasks that decided, and the margin."""
    retention = [r for r in found if r["group"] == "retention" and not np.isnan(r["difference"])]
    intervals = {r["task"]: _improvement(r, tables) for r in retention if tables[r["task"]].unit == "share"}
    worse = {r["task"] for r in retention if r["verdict"] == WORSE}
    code, tasks = _decide(row, intervals, worse, terms.retention_margin)
    return DECISIONS.get(code, UNSURE), {"code": code, "tasks": tasks, "margin": terms.retention_margin}


def _decide(
    row: Row, intervals: dict[str, tuple[float, float]], worse: set[str], margin: float
) -> tuple[str, list[str]]:
    """The code of the first rule that applies, with its tasks.

    `worse` are the retention tasks with a proved loss.

    Proved means after the correction for all comparisons, as everywhere; the intervals are those of
    one comparison by itself. So "don't ship" needs both, and "ship" needs every interval to stay
    above minus the margin.
    """
    if row["gain_verdict"] == WORSE:
        return WORSE_ON_TARGET, []
    lost = [task for task, (_, high) in intervals.items() if high < -margin and task in worse]
    if lost:
        return LOST_MORE_THAN_MARGIN, lost
    # From here on no proof speaks against shipping; the first open question is the reason to wait.
    if row["gain_verdict"] != BETTER:
        return GAIN_NOT_PROVED, []
    if row["retention_missing"]:
        return NO_SCORE, row["retention_missing"]
    if not intervals and row["unmargined"]:
        return NO_MARGIN, row["unmargined"]
    if not intervals:
        return RETENTION_NOT_MEASURED, []
    # A task in another unit than shares has no margin; only a person can weigh a proved loss there.
    without_margin = [task for task in row["unmargined"] if task in worse]
    if without_margin:
        return WORSE_WITHOUT_MARGIN, without_margin
    if row["likely_lost"]:
        return LOSS_LIKELY, row["likely_lost"]
    not_excluded = [task for task, (low, _) in intervals.items() if low < -margin]
    if not_excluded:
        return LOSS_NOT_EXCLUDED, not_excluded
    return NO_LOSS_BEYOND_MARGIN, row["unmargined"]
