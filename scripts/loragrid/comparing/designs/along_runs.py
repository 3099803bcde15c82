"""Scores along a run: where the target stops improving, and where retention begins to fall."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.causes import LOSS_NATS, LOSS_SHARE
from loragrid.comparing.comparisons import Terms, paired_rows, settings_of
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.statistics.paired_statistics import BETTER, WORSE, corrected
from loragrid.comparing.trade_off import mean_change
from loragrid.comparing.verdicts import judge, widen_by_seeds
from loragrid.records.outcomes import Outcome

# Codes of the target's path and of retention's path.
IMPROVING, TURNED, STOPPED, NO_GAIN, OPEN = "improving", "turned", "stopped", "no_gain", "open"
FALLS, KEPT, NOT_MEASURED = "falls", "kept", "not_measured"


@dataclass(frozen=True)
class Moment:
    """A share of a setting's budget: tokens seen, and the subjects scored then, one per seed."""

    share: float
    tokens: float
    subjects: list[str]


def along_runs(
    outcomes: list[Outcome],
    tables: dict[str, ItemTable],
    target: str | None,
    noise: dict[str, dict[str, Any]],
    terms: Terms,
) -> list[dict[str, Any]]:
    """Per setting that was scored at several shares its changes from the base, and both paths.

    The tests of the target's moments with each other are one family over all settings, those of
    mean retention another.
    """
    settings = [(members, moments) for members in settings_of(outcomes) if len(moments := _moments(members)) > 1]
    if target is None or not settings:
        return []
    table = tables[target]
    steps = [row for members, moments in settings for row in _steps(members, moments, table, terms)]
    kept = [row for members, moments in settings for row in _kept(members, moments, tables, noise, terms)]
    frame = widen_by_seeds(pd.DataFrame(steps), noise, terms)
    judge([frame], tables, terms)
    p = corrected(np.array([row["kept_p"] for row in kept], dtype=float), method=terms.correction)
    kept = [row | {"p_corrected": float(value)} for row, value in zip(kept, p)]
    found = []
    for members, moments in settings:
        run = members[0].subject
        own = [row for row in frame.to_dict("records") if row["run"] == run]
        kept_of_run = [row for row in kept if row["run"] == run]
        found.append(
            {
                "run": run,
                "seeds": len(members),
                "moments": [{"share": 0.0, "tokens": 0.0}]
                + [_moment(m, own, kept_of_run, tables[target]) for m in moments],
                "target": _target_path(own, tables[target], terms),
                "retention": _retention_path(kept_of_run, terms),
            }
        )
    return found


def _moments(members: list[Outcome]) -> list[Moment]:
    """The shares at which every seed's run was scored, the end included; nothing without parts."""
    shares: dict[float, list[Outcome]] = {}
    for run in members:
        for outcome in (*run.along, run) if run.record else ():
            if outcome.status == "scored":
                shares.setdefault(outcome.share, []).append(outcome)
    tokens = np.mean([run.record.tokens for run in members]) if members[0].record else 0.0
    return [
        Moment(share, float(share * tokens), [outcome.subject for outcome in found])
        for share, found in sorted(shares.items())
        if len(found) == len(members)
    ]


def _steps(members: list[Outcome], moments: list[Moment], table: ItemTable, terms: Terms) -> list[dict[str, Any]]:
    """A row per pair of moments, the base as share 0: the later score minus the earlier one's."""
    rows = []
    for one, other in combinations([Moment(0.0, 0.0, [members[0].base]), *moments], 2):
        if any(subject not in table.values for subject in (*one.subjects, *other.subjects)):
            continue
        before, after = (_mean(moment, table) for moment in (one, other))
        mask = ~np.isnan(before + after)
        weights = table.weights_of(other.subjects[0], mask)
        head = {"run": members[0].subject, "task": table.task, "from": one.share, "to": other.share}
        head["seed_share"] = (1 / len(other.subjects)) + (1 / len(one.subjects) if one.share else 0)
        rows.append(head | paired_rows(table, mask, before[mask], after[mask][None], weights=weights, terms=terms)[0])
    return rows


def _mean(moment: Moment, table: ItemTable) -> np.ndarray:
    return np.mean([table.values[subject] for subject in moment.subjects], axis=0)


def _kept(
    members: list[Outcome],
    moments: list[Moment],
    tables: dict[str, ItemTable],
    noise: dict[str, dict[str, Any]],
    terms: Terms,
) -> list[dict[str, Any]]:
    """A row per moment: the mean change over the retention tasks that are shares, with a t test."""
    retention = [table for table in tables.values() if table.group == "retention" and table.unit == "share"]
    rows = []
    for moment in moments:
        changes = [_steps(members, [moment], table, terms) for table in retention]
        frame = pd.DataFrame([change for found in changes for change in found])
        complete = len(frame) == len(retention) and "difference" in frame and frame["difference"].notna().all()
        if frame.empty or not complete:
            continue
        frame = widen_by_seeds(frame, noise, terms)
        sign = frame["task"].map(lambda task: 1.0 if tables[task].higher_is_better else -1.0)
        changed = frame.assign(improvement=frame["difference"] * sign).to_dict("records")
        rows.append({"run": members[0].subject, "to": moment.share} | mean_change(changed, terms.confidence))
    return rows


def _moment(
    moment: Moment, steps: list[dict[str, Any]], kept: list[dict[str, Any]], table: ItemTable
) -> dict[str, Any]:
    """What the page draws at one moment: changes from the base, positive where they are good."""
    found: dict[str, Any] = {"share": moment.share, "tokens": moment.tokens}
    for row in steps:
        if row["from"] == 0 and row["to"] == moment.share:
            found["target"] = _interval(row, table)
    for row in kept:
        if row["to"] == moment.share:
            found["kept"] = [row["kept"], row["kept_low"], row["kept_high"]]
    return found


def _interval(row: dict[str, Any], table: ItemTable) -> list[float]:
    """Improvement and its interval."""
    if table.higher_is_better:
        return [row["improvement"], row["low"], row["high"]]
    return [row["improvement"], -row["high"], -row["low"]]


def _target_path(steps: list[dict[str, Any]], table: ItemTable, terms: Terms) -> dict[str, Any]:
    """Whether the target still improved at the end, turned down, or stopped, and from which share."""
    if not any(row["from"] == 0 and row["verdict"] == BETTER for row in steps):
        return {"code": NO_GAIN}
    shares = sorted({row["to"] for row in steps})
    by_pair = {(row["from"], row["to"]): row for row in steps}
    end = shares[-1]
    into_end = [by_pair[share, end] for share in shares[:-1] if (share, end) in by_pair]
    turned = [row for row in into_end if row["verdict"] == WORSE]
    if turned:
        worst = min(turned, key=lambda row: row["improvement"])
        return {"code": TURNED, "share": worst["from"], "lost": _interval(worst, table)}
    if into_end and into_end[-1]["verdict"] == BETTER:
        return {"code": IMPROVING, "share": into_end[-1]["from"], "gained": _interval(into_end[-1], table)}
    for share in shares[:-1]:
        later = [_interval(by_pair[share, other], table) for other in shares if (share, other) in by_pair]
        gained = by_pair.get((0.0, share), {}).get("verdict") == BETTER
        margin = _margin(by_pair.get((0.0, share), {}), table, terms)
        if gained and later and max(high for _, _, high in later) <= margin:
            return {"code": STOPPED, "share": share, "margin": margin, "most": max(high for _, _, high in later)}
    last = into_end[-1] if into_end else None
    return {"code": OPEN, "share": last and last["from"], "last": last and _interval(last, table)}


def _margin(row: dict[str, Any], table: ItemTable, terms: Terms) -> float:
    """The largest gain that counts as none: the retention margin of shares, the margin of a loss."""
    if table.unit == "share":
        return terms.retention_margin
    return max(LOSS_NATS, LOSS_SHARE * abs(row.get("score", 0.0))) if table.metric == "loss" else 0.0


def _retention_path(kept: list[dict[str, Any]], terms: Terms) -> dict[str, Any]:
    """The share from which mean retention is proved below the base's, or whether a larger loss is excluded."""
    if not kept:
        return {"code": NOT_MEASURED}
    before = 0.0
    for row in kept:
        if row["kept"] < 0 and row["p_corrected"] < terms.alpha:
            return {
                "code": FALLS,
                "share": row["to"],
                "before": before,
                "lost": [row["kept"], row["kept_low"], row["kept_high"]],
            }
        before = row["to"]
    if all(row["kept_low"] >= -terms.retention_margin for row in kept):
        return {"code": KEPT, "margin": terms.retention_margin}
    return {"code": OPEN, "lowest": min(row["kept_low"] for row in kept)}
