"""What a study has come to so far: for every cell and every base its record, its scores, or the reason why not."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, one_line
from loragrid.records.record import RunRecord, ScoreRecord, read_record
from loragrid.runtime.atomic_files import read_json
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study
from loragrid.study.winner import cells_with_winner

# status → what it means, in the report's words
STATUSES = {
    "scored": "scored",
    "trained": "trained, not scored yet",
    "diverged": "diverged in training",
    "failed": "failed",
    "paused": "stopped before its end",
    "missing": "not run yet",
    "unreadable": "its record cannot be read",
}


@dataclass(frozen=True)
class Outcome:
    """One subject. `status` is a key of `STATUSES`; `reason` is None only for `scored`."""

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
    """Outcomes of the bases and then of the cells, in the grid's order, whatever of them is there."""
    found = [_base(results, subject, model) for subject, model in study.bases.items()]
    return found + [_run(results, cell) for cell in cells_with_winner(study, results)]


def data_cards(study: Study, results: Path) -> dict[str, dict[str, Any]]:
    """Data id → data card, of the study's data sets whose card is there; a search's winner has the base case's. What an
    earlier form of the study left in the same folder is none of it."""
    paths = {data: results / "data" / data / "card.json" for data in study.data_sets}
    return {data: read_json(path) for data, path in sorted(paths.items()) if path.is_file()}


def _base(results: Path, subject: str, model: str) -> Outcome:
    score, trouble = _read(results / "score" / subject / "score.json", ScoreRecord)
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
    record, trouble = _read(folder / "record.json", RunRecord)
    score, score_trouble = _read(results / "score" / cell.run / "score.json", ScoreRecord)
    if trouble or score_trouble:
        status, reason = "unreadable", trouble or score_trouble
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
        status, reason = "trained", "trained again since it was scored: the scores are of another adapter"
        score = None
    else:
        status, reason = "scored", None
    return Outcome(cell.run, "run", cell.model, cell.base, cell, record, score, status, reason)


def _read(path: Path, kind: type) -> tuple[Any, str | None]:
    if not path.is_file():
        return None, None
    try:
        return read_record(path, kind), None
    except UserError as error:
        return None, one_line(str(error))


def _why_no_record(folder: Path) -> tuple[str, str]:
    """Status and reason of a run without a record: what its failure file or the last line of its history says."""
    if (folder / "failure.json").is_file():
        try:
            failure = read_json(folder / "failure.json")
        except UserError as error:
            return "failed", one_line(str(error))
        if isinstance(failure, dict):
            return "failed", one_line(str(failure.get("message") or failure.get("reason") or "no reason was left"))[
                :500
            ]
        return "failed", "its failure.json holds no reason"
    last = _last_line(folder / "history.jsonl")
    if last is None:
        return "missing", "not run yet"
    if last.get("event") == "end":
        return "paused", one_line(f"{last.get('ended')} at step {last.get('step')}; the same command goes on")
    return "paused", one_line(
        f"started at step {last.get('step')} and running still, or killed; the same command goes on"
    )


def _last_line(path: Path) -> dict[str, Any] | None:
    """The last whole JSON line of a history; a line that a power cut tore is passed over."""
    if not path.is_file():
        return None
    for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            return value
    return None
