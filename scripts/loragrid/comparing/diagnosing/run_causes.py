"""Why a tuned model is worse, or could be better: the causes that hold for one run."""

from collections.abc import Iterator
from typing import Any

from loragrid.comparing.diagnosing.answer_causes import collapsed, never_stops
from loragrid.comparing.diagnosing.causes import Cause
from loragrid.comparing.diagnosing.loss_causes import loss_causes
from loragrid.comparing.diagnosing.run_evidence import RunEvidence
from loragrid.comparing.measures import RETENTION
from loragrid.statistics.paired_statistics import UNSURE, WORSE
from loragrid.study.checks.run_length import warmup_warning

Row = dict[str, Any]


def run_causes(evidence: RunEvidence, rows: list[Row]) -> list[Cause]:
    """The causes of one run, whose comparisons with its base are `rows`."""
    if evidence.outcome.status == "diverged":
        return [Cause("diverged", "loss_not_finite")]
    found = [*warmup_to_the_end(evidence), *loss_causes(evidence)]
    found += never_stops(evidence.answers, evidence.base_answers)
    found += collapsed(evidence.answers, evidence.base_answers, {row["task"] for row in rows if gained(row)})
    return found + list(forgot(rows))


def warmup_to_the_end(evidence: RunEvidence) -> Iterator[Cause]:
    """The learning rate rose until the run's last update, so the run is not of the rate that names it."""
    outcome = evidence.outcome
    if outcome.cell is None or outcome.record is None:
        return
    settings, planned = outcome.cell.settings, outcome.record.planned_steps
    if warmup_warning(settings, planned) is not None:
        reached = (planned - 1) / settings.warmup.steps
        measured = {"warmup": settings.warmup.steps, "updates": planned, "reached": reached}
        yield Cause("warmup", "rate_not_reached", measured)


def gained(row: Row) -> bool:
    """Whether the comparison shows a gain, of the setting or, with one seed, of this adapter."""
    return row["verdict"] not in ("", UNSURE) and row["improvement"] > 0


def forgot(rows: list[Row]) -> Iterator[Cause]:
    """The setting is proved worse than its base on pooled retention; the single tasks are details."""
    for row in rows:
        if row["family"] == RETENTION and row["verdict"] == WORSE:
            measured = {name: row[name] for name in ("difference", "low", "high", "seeds")}
            tasks = [other for other in rows if other["group"] == "retention" and other["family"] != RETENTION]
            changes = [
                {"task": other["task"], "difference": other["difference"]} for other in tasks if other["verdict"]
            ]
            yield Cause("forgot", "retention_lost", measured | {"tasks": changes})
