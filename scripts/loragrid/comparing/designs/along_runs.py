"""Scores along a run: where the target stops improving, and where retention begins to fall.

With one seed the paths are those of this very run, and say nothing of another run of its setting.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from loragrid.comparing.comparisons import settings_of
from loragrid.comparing.contrasts import ADAPTERS, SETTING, Side, contrast_row
from loragrid.comparing.diagnosing.loss_margins import LossMargin
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.measures import POOLED_RETENTION, Measure, Spreads, spreads_of
from loragrid.comparing.study_results import JudgedTables
from loragrid.comparing.terms import Terms
from loragrid.comparing.verdicts import judge
from loragrid.records.outcomes import Outcome
from loragrid.statistics.paired_statistics import BETTER, DIFFER, WORSE
from loragrid.statistics.seed_spread import SeedSpread

# Codes of the target's path and of retention's path.
IMPROVING, TURNED, STOPPED, NO_GAIN, OPEN = "improving", "turned", "stopped", "no_gain", "open"
FALLS, KEPT, NOT_MEASURED = "falls", "kept", "not_measured"


@dataclass(frozen=True)
class Moment:
    """A share of a setting's budget: tokens seen, and the subjects scored then, one per seed."""

    share: float
    tokens: float
    subjects: list[str]


def along_runs(outcomes: list[Outcome], judged: JudgedTables, target: str | None) -> list[dict[str, Any]]:
    """Per setting that was scored at several shares its changes from the base, and both paths.

    The tests of the target's moments with each other are one family over all settings, those of
    pooled retention another.
    """
    settings = [(members, moments) for members in settings_of(outcomes) if len(moments := _moments(members)) > 1]
    measures = {measure.name: measure for measure in judged.measures}
    if target is None or not settings:
        return []
    table = measures[target].tables[0]
    wanted = [measures[name] for name in (target, POOLED_RETENTION) if name in measures]
    spreads = _spreads(settings, wanted)
    steps = [row for found in settings for row in _steps(*found, measures[target], spreads, judged.terms)]
    kept = []
    if POOLED_RETENTION in measures:
        retention = measures[POOLED_RETENTION]
        kept = [row for found in settings for row in _from_base(*found, retention, spreads, judged.terms)]
    judge(steps + kept, measures, judged.terms)
    found = []
    for members, moments in settings:
        run = members[0].subject
        own = [row for row in steps if row["run"] == run]
        kept_of_run = [row for row in kept if row["run"] == run and row["verdict"]]
        found.append(
            {
                "run": run,
                "seeds": len(members),
                "level": SETTING if len(members) > 1 else ADAPTERS,
                "moments": [{"share": 0.0, "tokens": 0.0}] + [_moment(m, own, kept_of_run, table) for m in moments],
                "target": _target_path(own, table, judged.terms),
                "retention": _retention_path(kept_of_run, judged.terms),
            }
        )
    return found


def _spreads(settings: list[tuple[list[Outcome], list[Moment]]], measures: list[Measure]) -> Spreads:
    """The seeds' spread at every moment, pooled over the settings scored at the same share."""
    found: dict[str, dict[str, SeedSpread]] = {measure.name: {} for measure in measures}
    for share in {moment.share for _, moments in settings for moment in moments}:
        subjects = [moment.subjects for _, moments in settings for moment in moments if moment.share == share]
        for name, spreads in spreads_of(measures, subjects).items():
            found[name] |= spreads
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


def _steps(
    members: list[Outcome], moments: list[Moment], measure: Measure, spreads: Spreads, terms: Terms
) -> list[dict[str, Any]]:
    """A row per pair of moments, the base as share 0: the later score minus the earlier one's."""
    rows = []
    for one, other in combinations([Moment(0.0, 0.0, [members[0].base]), *moments], 2):
        place = [
            Side(tuple(one.subjects), -1.0, trained=one.share > 0),
            Side(tuple(other.subjects), 1.0, trained=True),
        ]
        head = {"run": members[0].subject, "from": one.share, "to": other.share}
        rows.append(head | contrast_row(measure, [place], spreads, terms))
    return rows


def _from_base(
    members: list[Outcome], moments: list[Moment], measure: Measure, spreads: Spreads, terms: Terms
) -> list[dict[str, Any]]:
    """The steps from the base to each moment."""
    return [row for row in _steps(members, moments, measure, spreads, terms) if row["from"] == 0]


def _moment(
    moment: Moment, steps: list[dict[str, Any]], kept: list[dict[str, Any]], table: ItemTable
) -> dict[str, Any]:
    """What the page draws at one moment: changes from the base, positive where they are good."""
    found: dict[str, Any] = {"share": moment.share, "tokens": moment.tokens}
    for row in steps:
        if row["from"] == 0 and row["to"] == moment.share and row["verdict"]:
            found["target"] = _interval(row, table)
    for row in kept:
        if row["to"] == moment.share:
            found["kept"] = [row["difference"], row["low"], row["high"]]
    return found


def _interval(row: dict[str, Any], table: ItemTable) -> list[float]:
    """Improvement and its interval."""
    if table.higher_is_better:
        return [row["improvement"], row["low"], row["high"]]
    return [row["improvement"], -row["high"], -row["low"]]


def _is_better(row: dict[str, Any]) -> bool:
    return row["verdict"] == BETTER or (row["verdict"] == DIFFER and row["improvement"] > 0)


def _is_worse(row: dict[str, Any]) -> bool:
    return row["verdict"] == WORSE or (row["verdict"] == DIFFER and row["improvement"] < 0)


def _target_path(steps: list[dict[str, Any]], table: ItemTable, terms: Terms) -> dict[str, Any]:
    """Whether the target still improved at the end, turned down, or stopped, and from which share."""
    if not any(row["from"] == 0 and _is_better(row) for row in steps):
        return {"code": NO_GAIN}
    shares = sorted({row["to"] for row in steps})
    by_pair = {(row["from"], row["to"]): row for row in steps}
    end = shares[-1]
    into_end = [by_pair[share, end] for share in shares[:-1] if (share, end) in by_pair]
    turned = [row for row in into_end if _is_worse(row)]
    if turned:
        worst = min(turned, key=lambda row: row["improvement"])
        return {"code": TURNED, "share": worst["from"], "lost": _interval(worst, table)}
    if into_end and _is_better(into_end[-1]):
        return {"code": IMPROVING, "share": into_end[-1]["from"], "gained": _interval(into_end[-1], table)}
    for share in shares[:-1]:
        later = [_interval(by_pair[share, other], table) for other in shares if (share, other) in by_pair]
        from_base = by_pair.get((0.0, share))
        margin = _margin(from_base, table, terms)
        if from_base and _is_better(from_base) and later and max(high for _, _, high in later) <= margin:
            return {"code": STOPPED, "share": share, "margin": margin, "most": max(high for _, _, high in later)}
    last = into_end[-1] if into_end else None
    return {"code": OPEN, "share": last and last["from"], "last": last and _interval(last, table)}


def _margin(from_base: dict[str, Any] | None, table: ItemTable, terms: Terms) -> float:
    """The largest gain that counts as none: the retention margin of shares, the margin of a loss."""
    if table.unit == "share":
        return terms.retention_margin
    if table.metric != "loss" or not from_base or not from_base["verdict"]:
        return 0.0
    return LossMargin(to_win=from_base["improvement"]).in_run(from_base["score"])["nats"]


def _retention_path(kept: list[dict[str, Any]], terms: Terms) -> dict[str, Any]:
    """The share from which pooled retention is proved below the base's, or whether a larger loss is excluded."""
    if not kept:
        return {"code": NOT_MEASURED}
    before = 0.0
    for row in kept:
        if _is_worse(row):
            lost = [row["difference"], row["low"], row["high"]]
            return {"code": FALLS, "share": row["to"], "before": before, "lost": lost}
        before = row["to"]
    if all(row["low"] >= -terms.retention_margin for row in kept):
        return {"code": KEPT, "margin": terms.retention_margin}
    return {"code": OPEN, "lowest": min(row["low"] for row in kept)}
