"""The outcomes of a study so far: each subject's record and scores, or why they are missing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, one_line
from loragrid.records.history import History
from loragrid.records.record import RunRecord, ScoreRecord, find_record
from loragrid.runtime.atomic_files import read_json
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study
from loragrid.study.winner import cells_with_winner


@dataclass(frozen=True)
class Outcome:
    """Record, scores and status of one subject.

    `status` is scored, trained, diverged, failed, paused, missing or unreadable; `reason` is None only if scored.
    """

    subject: str
    kind: str
    model: str
    base: str
    cell: Cell | None
    record: RunRecord | None
    score: ScoreRecord | None
    status: str
    reason: str | None


def collect(study: Study, results: Path) -> list[Outcome]:
    """Outcomes of the bases and then of the cells, in the grid's order, finished or not."""
    found = [_base(results, subject, model) for subject, model in study.bases.items()]
    return found + [_run(results, cell) for cell in cells_with_winner(study, results)]


def data_cards(study: Study, results: Path) -> dict[str, dict[str, Any]]:
    """Data id → data card, of the study's prepared data sets.

    A search's winner uses the base case's.
    """
    # Not a glob: the folder may also hold data sets of an earlier version of the study.
    paths = {data: results / "data" / data / "card.json" for data in study.data_sets}
    return {data: read_json(path) for data, path in sorted(paths.items()) if path.is_file()}


def _base(results: Path, subject: str, model: str) -> Outcome:
    score, trouble = find_record(results / "score" / subject / "score.json", ScoreRecord)
    status, reason = "scored", None
    if trouble:
        status, reason = "unreadable", trouble
    elif score is None:
        status, reason = "missing", "not scored yet"
    elif score.status != "scored":
        status, reason = "failed", score.reason or "not scored"
    return Outcome(subject, "base", model, subject, None, None, score, status, reason)


def _run(results: Path, cell: Cell) -> Outcome:
    folder = results / "train" / cell.run
    record, record_trouble = find_record(folder / "record.json", RunRecord)
    score, score_trouble = find_record(results / "score" / cell.run / "score.json", ScoreRecord)
    trouble = record_trouble or score_trouble
    if trouble:
        status, reason = "unreadable", trouble
    elif record is None:
        status, reason = _why_no_record(folder)
        score = None
    elif record.status == "diverged":
        status, reason = "diverged", record.reason or "the loss became NaN or infinite"
    elif score is None:
        status, reason = "trained", "not scored yet"
    elif score.status != "scored":
        status, reason = "failed", score.reason or "not scored"
    elif score.adapter_sha256 != record.adapter_sha256:
        # Without this check the table would show the scores of an adapter that no longer exists.
        status, reason = "trained", "trained again since it was scored: the scores belong to another adapter"
        score = None
    else:
        status, reason = "scored", None
    return Outcome(cell.run, "run", cell.model, cell.base, cell, record, score, status, reason)


def _why_no_record(folder: Path) -> tuple[str, str]:
    """Status and reason of a run without a record, from failure.json or the end of its history."""
    # failure.json says more than the history's last line.
    if (folder / "failure.json").is_file():
        return "failed", _failure_reason(folder / "failure.json")
    lines = History(folder / "history.jsonl").lines()
    if not lines:
        return "missing", "not run yet"
    last = lines[-1]
    if last["event"] == "end":
        reason = f"{last.get('ended')} at step {last.get('step')}"
    else:
        reason = f"started at step {last.get('step')}, and either still running or killed"
    return "paused", one_line(f"{reason}; the same command continues it")


def _failure_reason(path: Path) -> str:
    try:
        failure = read_json(path)
    except UserError as error:
        return one_line(str(error))
    if not isinstance(failure, dict):
        return "its failure.json holds no reason"
    reason = failure.get("message") or failure.get("reason") or "its failure.json holds no reason"
    return one_line(str(reason))[:500]
