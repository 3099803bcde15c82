"""The rows of runs.csv, one per run and base, and of scores.csv, one per subject and task; scores of settings."""

import dataclasses
from typing import Any

import numpy as np

from loragrid.comparing.comparisons import settings_of, side_of
from loragrid.comparing.contrasts import contrast_row
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.study_results import JudgedTables
from loragrid.records.outcomes import Outcome
from loragrid.records.record import TaskScore
from loragrid.statistics.clustered_means import mean_interval
from loragrid.study.completion import setting_names
from loragrid.study.run_names import value_text
from loragrid.study.settings import Settings

# Fields of a training record that are columns as they are.
FROM_RECORD = (
    "backend data_id data_fingerprint train_rows heldout_rows base_source base_commit "
    "base_sha256 steps planned_steps samples tokens loss_tokens padding_share train_seconds "
    "tokens_per_second peak_vram_mib peak_rss_mib energy_joules trainable_parameters "
    "total_parameters final_train_loss first_heldout_loss final_heldout_loss weights_sha256"
).split()
ORIGIN_COLUMNS = (
    "train_code train_commit train_finished_at score_code score_commit score_base_commit score_notes score_finished_at"
).split()


def subject_rows(outcomes: list[Outcome], more: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One dict per run and base: settings, cost, losses, `more` columns by run, metrics, origin."""
    metrics: dict[str, list[str]] = {}
    for outcome in outcomes:
        for task, score in _scored_tasks(outcome).items():
            known = metrics.setdefault(task, [])
            known += [metric for metric in score.metrics if metric not in known]
    # Every row has all columns, so that their order does not depend on which run comes first.
    none = dict.fromkeys(key for columns in more.values() for key in columns)
    rows = []
    for outcome in outcomes:
        row = _settings(outcome) | _training(outcome) | none | more.get(outcome.subject, {})
        rows.append(row | _scores(outcome, metrics) | _origin(outcome))
    return rows


def _scored_tasks(outcome: Outcome) -> dict[str, TaskScore]:
    return outcome.score.tasks if outcome.score else {}


def _settings(outcome: Outcome) -> dict[str, Any]:
    """Every setting in a column of its own, and what departs from the base case.

    A budget or a warm-up has a column per unit, such as `budget.tokens`.
    """
    cell = outcome.cell
    row = {name: getattr(outcome, name) for name in ("subject", "kind", "status", "reason", "base", "model")}
    row |= {name: None if cell is None else _value(getattr(cell.settings, name)) for name in setting_names()[1:]}
    units = {name: row.pop(name) for name in Settings.nested()}
    for name, kind in Settings.nested().items():
        for field in dataclasses.fields(kind):
            row[f"{name}.{field.name}"] = None if units[name] is None else getattr(units[name], field.name)
    row["effective_batch"] = None if cell is None else cell.settings.per_device * cell.settings.accumulation
    row["departs"] = None if cell is None else ",".join(cell.departs)
    # Of a base and of an adopted adapter only the score knows the precision.
    if outcome.score is not None:
        row["precision"] = outcome.score.precision
    return row


def _value(value: Any) -> Any:
    """A setting as a cell of the table: a batch as 2x4, names separated by spaces."""
    if not isinstance(value, tuple):
        return value
    return " ".join(value) if all(isinstance(item, str) for item in value) else value_text(value)


def _training(outcome: Outcome) -> dict[str, Any]:
    record, score = outcome.record, outcome.score
    row = dict.fromkeys((*FROM_RECORD, "sessions", "device", "notes"))
    if record is not None:
        row = {name: getattr(record, name) for name in FROM_RECORD}
        row |= {"sessions": len(record.sessions), "device": record.device.get("name"), "notes": _joined(record.notes)}
    return row | {"score_seconds": score.seconds if score else None}


def _joined(notes: tuple[str, ...]) -> str | None:
    return "; ".join(notes) if notes else None


def _scores(outcome: Outcome, metrics: dict[str, list[str]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for task, names in metrics.items():
        status, reason, values = None, None, {}
        score = _scored_tasks(outcome).get(task)
        if score is not None:
            status, reason, values = score.status, score.reason, score.metrics
        row |= {f"{task}.status": status, f"{task}.reason": reason}
        for name in names:
            found = values.get(name, {})
            row |= {f"{task}.{name}": found.get("value"), f"{task}.{name}.stderr": found.get("stderr")}
    return row


def _origin(outcome: Outcome) -> dict[str, Any]:
    """Which code and commit trained and scored it, and when."""
    record, score = outcome.record, outcome.score
    row = dict.fromkeys(ORIGIN_COLUMNS)
    if record is not None:
        row |= {"train_code": record.code, "train_commit": record.git.get("commit")}
        row["train_finished_at"] = record.finished_at
    if score is not None:
        row |= {"score_code": score.code, "score_commit": score.git.get("commit")}
        row |= {"score_base_commit": score.base_commit, "score_notes": _joined(score.notes)}
        row["score_finished_at"] = score.finished_at
    return row


def score_rows(tables: dict[str, ItemTable], confidence: float) -> list[dict[str, Any]]:
    """One dict per subject and task: the task's main metric with its interval."""
    rows = []
    for table in tables.values():
        for subject, values in table.values.items():
            mask = ~np.isnan(values)
            if not mask.any():
                continue
            weights = table.weights_of(subject, mask)
            clusters = table.clusters_of(mask)
            found = mean_interval(values[mask], weights=weights, clusters=clusters, confidence=confidence)
            head = {"subject": subject, "task": table.task, "group": table.group, "metric": table.metric}
            rows.append(head | {"items": int(mask.sum())} | found)
    return rows


def setting_scores(outcomes: list[Outcome], judged: JudgedTables) -> list[dict[str, Any]]:
    """Per setting with two seeds or more its mean score on every measure, with an interval over items and seeds."""
    found = []
    for members in (members for members in settings_of(outcomes) if len(members) > 1):
        rows = [(m, contrast_row(m, [[side_of(members, 1.0)]], judged.spreads, judged.terms)) for m in judged.measures]
        scores = {
            measure.name: {"value": row["score"], "low": row["low"], "high": row["high"]}
            for measure, row in rows
            if "low" in row
        }
        found.append({"runs": [run.subject for run in members], "scores": scores})
    return found
