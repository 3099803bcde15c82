"""The outcomes of a study so far: each subject's record and scores, or why they are missing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from loragrid.errors import UserError, one_line
from loragrid.records.failures import logged_failure
from loragrid.records.history import History
from loragrid.records.record import RunRecord, ScoreRecord, find_record
from loragrid.records.seal import check_sealed
from loragrid.runtime.atomic_files import read_json
from loragrid.study.grid import Cell
from loragrid.study.run_names import subject_at
from loragrid.study.search.winner import cells_with_winner
from loragrid.study.study_file import Study


class Engine(NamedTuple):
    """What a subject's scores are made by, as the study file says now.

    `precision` is None for runs that are not in 32bit, whose precision `scoring.precision` leaves as it is.
    """

    name: str
    precision: str | None


@dataclass(frozen=True)
class Outcome:
    """Record, scores and status of one subject.

    `kind`: "base", "run" or "adopted"; `cell` and `record` are None but for a run. `status` is
    scored, trained, diverged, failed, paused, missing or unreadable; `reason` is None only if
    scored. `along`: the outcomes of a run at the parts of its budget that are below 1, each with
    its `share`.
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
    share: float = 1.0
    along: tuple["Outcome", ...] = ()


def collect(study: Study, results: Path) -> list[Outcome]:
    """Outcomes of the bases, of the cells in the grid's order, and of the adopted adapters,
    finished or not."""
    found = [_untrained(results, base, "base", cell, _engine(study, cell)) for base, cell in study.bases.items()]
    for cell in cells_with_winner(study, results):
        engine = _engine(study, cell)
        run = _run(results, cell, engine)
        shares = sorted(share for share in study.scoring.at if share < 1)
        found.append(replace(run, along=tuple(_along(results, run, share, engine) for share in shares)))
    for name, one in study.adopted.items():
        found.append(_untrained(results, name, "adopted", one.cell, _engine(study, one.cell)))
    return found


def _engine(study: Study, cell: Cell) -> Engine:
    is_whole = cell.settings.precision == "32bit"
    return Engine(study.scoring.engine, study.scored_entry(cell).precision if is_whole else None)


def data_cards(study: Study, results: Path) -> dict[str, dict[str, Any]]:
    """Data id → data card, of the study's prepared data sets.

    A search's winner uses the base case's. Raises `UserError` for a card that was changed.
    """
    # Not a glob: the folder may also hold data sets of an earlier version of the study.
    paths = {data: results / "data" / data / "card.json" for data in study.data_sets}
    found = {data: path for data, path in sorted(paths.items()) if path.is_file()}
    check_sealed(*found.values())
    return {data: read_json(path) for data, path in found.items()}


def identical_weights(outcomes: list[Outcome]) -> list[tuple[str, ...]]:
    """The subjects of each set of runs and adopted adapters whose trained weights are one file under several names.

    What such runs differ in had no effect on their training.
    """
    by_weights: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        made = outcome.record or (outcome.score if outcome.kind == "adopted" else None)
        if made is not None and made.weights_sha256 is not None:
            by_weights.setdefault((outcome.base, made.weights_sha256), []).append(outcome.subject)
    return [tuple(subjects) for subjects in by_weights.values() if len(subjects) > 1]


def data_failure(results: Path, data: str) -> str | None:
    """Why a data set is missing, by the log of its job; None if it is there or its job has not failed."""
    if (results / "data" / data / "card.json").is_file():
        return None
    failure = logged_failure(results / "logs" / "prepare_data" / f"{data}.log")
    return None if failure is None else f"its data could not be prepared ({failure[:400]})"


def _untrained(results: Path, subject: str, kind: str, cell: Cell, engine: Engine) -> Outcome:
    """The outcome of a subject that is not trained here: a base or an adopted adapter."""
    score, status, reason = _read_score(results, subject, engine)
    if status == "missing":
        reason = data_failure(results, cell.data) or reason
    return Outcome(subject, kind, cell.model, cell.base, None, None, score, status, reason)


def _run(results: Path, cell: Cell, engine: Engine) -> Outcome:
    folder = results / "train" / cell.run
    record, trouble = find_record(folder / "record.json", RunRecord)
    if record is not None and record.run != cell.run:
        record, trouble = None, _copied(folder, record.run)
    score, status, reason = _read_score(results, cell.run, engine)
    if trouble:
        status, reason = "unreadable", trouble
    elif status == "unreadable":
        pass
    elif record is None:
        status, reason = _why_no_record(folder)
        if status == "missing":
            reason = data_failure(results, cell.data) or reason
        score = None
    elif record.status == "diverged":
        status, reason = "diverged", record.reason or "the loss became NaN or infinite"
    else:
        score, status, reason = _of_record(record, score, status, reason)
    return Outcome(cell.run, "run", cell.model, cell.base, cell, record, score, status, reason)


def _along(results: Path, run: Outcome, share: float, engine: Engine) -> Outcome:
    """The outcome of a run at a part of its budget."""
    subject = subject_at(run.subject, share)
    if run.record is None:
        return replace(run, subject=subject, score=None, share=share)
    score, status, reason = _of_record(run.record, *_read_score(results, subject, engine))
    return replace(run, subject=subject, score=score, status=status, reason=reason, share=share)


def _read_score(results: Path, subject: str, engine: Engine) -> tuple[ScoreRecord | None, str, str | None]:
    """Score record, status and reason of a subject, whatever its training was.

    Scores of another engine or precision than the study's are none, because they are rounded differently.
    """
    score, trouble = find_record(results / "score" / subject / "score.json", ScoreRecord)
    if score is not None and score.subject != subject:
        trouble = _copied(results / "score" / subject, score.subject)
    if trouble:
        return None, "unreadable", trouble
    if score is None:
        return None, "missing", "not scored yet"
    if score.engine != engine.name:
        return None, "missing", f"scored by {score.engine}, not by {engine.name} as scoring.engine says now"
    if engine.precision not in (None, score.precision):
        reason = f"scored in {score.precision}, not in {engine.precision} as scoring.precision says now"
        return None, "missing", reason
    if score.status != "scored":
        return score, "failed", score.reason or "not scored"
    return score, "scored", None


def _copied(folder: Path, owner: str) -> str:
    """The trouble of a folder that holds the results of another subject, whose own digests fit."""
    return f"{folder}: the results of {owner}, not its own. Fix: delete the folder and run snakemake again."


def _of_record(
    record: RunRecord, score: ScoreRecord | None, status: str, reason: str | None
) -> tuple[ScoreRecord | None, str, str | None]:
    """The same of a run that is trained, without the scores of other weights than the record's."""
    if status == "missing":
        return None, "trained", reason
    if status == "scored" and score.weights_sha256 != record.weights_sha256:
        # Without this check the table would show the scores of weights that no longer exist.
        return None, "trained", "trained again since it was scored: the scores belong to other weights"
    return score, status, reason


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
