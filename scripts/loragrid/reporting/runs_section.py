"""The page's table of all runs and bases, failed and missing ones with their reason."""

import math
from typing import Any

import pandas as pd

from loragrid.comparing.axis_effects import axis_text
from loragrid.formatting import duration, number, score, setting, visible, whole
from loragrid.records.outcomes import Outcome
from loragrid.reporting.page import Material

# Status of a run → the table's words for it.
STATUSES = {
    "scored": "scored",
    "trained": "trained, not scored yet",
    "diverged": "diverged in training",
    "failed": "failed",
    "paused": "stopped before its end",
    "missing": "not run yet",
    "unreadable": "its record cannot be read",
}


def run_rows(material: Material) -> list[dict[str, Any]]:
    """A row per run and base: settings, status, scores with verdicts, and cost.

    `sort` holds the numbers to sort by.
    """
    # A setting's verdict belongs to all of its seeds together.
    verdicts = {
        (run, row.task): row.verdict for row in material.compared.comparisons.itertuples() for run in row.runs.split()
    }
    return [
        {
            "subject": outcome.subject,
            "label": material.compared.labels[outcome.subject],
            "kind": outcome.kind,
            "model": visible(outcome.model),
            "reason": visible(outcome.reason or "", 300),
            "notes": [visible(note, 300) for made in (outcome.record, outcome.score) if made for note in made.notes],
            "status": outcome.status,
            "status_text": _status_text(outcome),
            "scores": _scores(outcome, material, verdicts),
            **_numbers(outcome, _cell(material.runs, outcome.subject, "heldout_loss_at_equal_tokens")),
        }
        for outcome in material.outcomes
    ]


def _status_text(outcome: Outcome) -> str:
    # A base is never trained, so only its score can be missing.
    return STATUSES[outcome.status] if outcome.cell else outcome.status


def _scores(outcome: Outcome, material: Material, verdicts: dict[tuple[str, str], str]) -> list[dict[str, Any]]:
    found = []
    for name, task in material.compared.summary["tasks"].items():
        scored = outcome.score.tasks.get(name) if outcome.score else None
        value = None
        if scored and task["metric"] in scored.metrics:
            value = scored.metrics[task["metric"]]["value"]
        verdict = verdicts.get((outcome.subject, name), "")
        found.append({"value": score(value, task["unit"]), "sort": value, "verdict": verdict})
    return found


def _numbers(outcome: Outcome, loss_at_equal_tokens: float | None) -> dict[str, Any]:
    """The columns that sort by number, as texts, with the numbers under `sort`.

    A dash where there is none.
    """
    columns: dict[str, tuple[str, float | None]] = {"equal": (number(loss_at_equal_tokens), loss_at_equal_tokens)}
    columns |= dict.fromkeys(("learning_rate", "rank", "batch", "seed", "updates", "tokens", "seconds"), ("–", None))
    cell, record = outcome.cell, outcome.record
    if cell:
        columns["learning_rate"] = setting(cell.learning_rate), cell.learning_rate
        columns["rank"] = str(cell.rank), cell.rank
        columns["batch"] = axis_text("batch", cell.batch), cell.batch[0] * cell.batch[1]
        columns["seed"] = str(cell.seed), cell.seed
    if record:
        columns["updates"] = whole(record.steps), record.steps
        columns["tokens"] = whole(record.tokens), record.tokens
        columns["seconds"] = duration(record.train_seconds), record.train_seconds
    texts = {name: text for name, (text, _) in columns.items()}
    return texts | {"sort": {name: value for name, (_, value) in columns.items()}}


def _cell(table: pd.DataFrame, subject: str, column: str) -> float | None:
    """A number of a table, None where there is none."""
    if column not in table or subject not in table.index:
        return None
    value = float(table.at[subject, column])
    return value if math.isfinite(value) else None
