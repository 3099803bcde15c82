"""The page's table of all runs and bases, failed and missing ones with their reason."""

import math
from typing import Any

import pandas as pd

from loragrid.comparing.designs.axis_pairs import size_of
from loragrid.comparing.item_tables import BITS_PER_BYTE
from loragrid.formatting import detectable, duration, number, p_value, score, visible, whole
from loragrid.records.outcomes import Outcome, identical_weights
from loragrid.records.record import TaskScore
from loragrid.reporting.page import Material
from loragrid.setting_texts import axis_name, axis_value
from loragrid.statistics.paired_statistics import UNSURE
from loragrid.study.completion import setting_names
from loragrid.study.grid import Cell
from loragrid.study.run_names import value_text
from loragrid.study.settings import Section

# Settings with a column in every study; others have one where runs differ in them.
ALWAYS_SHOWN = ("learning_rate", "rank", "batch", "seed")
COUNTED = ("updates", "tokens", "seconds")


def setting_columns(material: Material) -> list[dict[str, Any]]:
    """The columns of settings that every study has and of those that vary: `name`, `heading`, and `words` if a
    value is not a number."""
    cells = [outcome.cell for outcome in material.outcomes if outcome.cell]
    columns = []
    for name in setting_names()[1:]:
        values = {value_text(plain_value(cell, name)): plain_value(cell, name) for cell in cells}
        if len(values) > 1 or (name in ALWAYS_SHOWN and list(values) != ["None"]):
            words = any(value is not None and size_of(value)[0] for value in values.values())
            columns.append({"name": name, "heading": axis_name(name).capitalize(), "words": words})
    return columns


def plain_value(cell: Cell, name: str) -> Any:
    """A run's setting as in the study file: a budget or a warm-up as a map with its unit."""
    value = getattr(cell.settings, name)
    if not isinstance(value, Section):
        return value
    return {unit: amount for unit, amount in vars(value).items() if amount is not None}


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


def identical_runs(material: Material) -> list[str]:
    """A sentence per set of runs that have the same weights under several names."""
    labels, found = material.compared.labels, []
    for subjects in identical_weights(material.outcomes):
        names = [f"“{visible(labels[subject], 80)}”" for subject in subjects]
        found.append(
            f"{', '.join(names[:-1])} and {names[-1]} have byte-identical weights: what they differ in had no effect "
            "on their training, so they are one run under several names."
        )
    return found


def run_rows(material: Material) -> list[dict[str, Any]]:
    """A row per run, base and adopted adapter: settings, status, scores with verdicts, and cost.

    `sort` holds the numbers to sort by.
    """
    columns = setting_columns(material)
    # A setting's verdict belongs to all of its seeds together.
    verdicts = {
        (run, row.task): row.verdict for row in material.compared.comparisons.itertuples() for run in row.runs.split()
    }
    of_target = {run: row for row in _target_rows(material) for run in row["runs"].split()}
    return [
        {
            "subject": outcome.subject,
            **_tested(of_target.get(outcome.subject), material.compared.unit),
            "label": material.compared.labels[outcome.subject],
            "kind": outcome.kind,
            "model": visible(outcome.model),
            "reason": visible(outcome.reason or "", 300),
            "notes": [visible(note, 300) for made in (outcome.record, outcome.score) if made for note in made.notes],
            "status": outcome.status,
            "status_text": _status_text(outcome),
            "scores": _scores(outcome, material, verdicts),
            "settings": [_setting(outcome.cell, column) for column in columns],
            **_numbers(outcome, _cell(material.runs, outcome.subject, "heldout_loss_at_equal_tokens")),
        }
        for outcome in material.outcomes
    ]


def _target_rows(material: Material) -> list[dict[str, Any]]:
    """The comparisons with bases on the main target."""
    rows = material.compared.comparisons
    return rows[rows["task"] == material.compared.target].to_dict("records")


def _tested(row: dict[str, Any] | None, unit: str) -> dict[str, Any]:
    """A setting's comparison with its base on the main target: `seeds`, `p` and `finds`, each (text, number)."""
    if row is None:
        return dict.fromkeys(("seeds", "p", "finds"), ("–", None))
    p, found = row["p_corrected"], row.get("detectable")
    finds = ("–", None)
    if row["verdict"] == UNSURE:
        known = isinstance(found, float) and math.isfinite(found)
        finds = (detectable(found, unit), found if known else None)
    return {
        "seeds": (str(row["seeds"]), row["seeds"]),
        "p": (p_value(p), p if math.isfinite(p) else None),
        "finds": finds,
    }


def _status_text(outcome: Outcome) -> str:
    if outcome.kind == "adopted":
        return f"adopted, {outcome.status}"
    # A base is never trained, so only its score can be missing.
    return STATUSES[outcome.status] if outcome.cell else outcome.status


def _setting(cell: Cell | None, column: dict[str, Any]) -> dict[str, Any]:
    """A run's value of a setting, with the number to sort by; a dash for what it does not have."""
    value = plain_value(cell, column["name"]) if cell else None
    if value is None:
        return {"text": "–", "sort": None, "words": column["words"]}
    sort = None if column["words"] else size_of(value)[1]
    return {"text": axis_value(column["name"], value_text(value)), "sort": sort, "words": column["words"]}


def _scores(outcome: Outcome, material: Material, verdicts: dict[tuple[str, str], str]) -> list[dict[str, Any]]:
    found = []
    for name, task in material.compared.summary["tasks"].items():
        scored = outcome.score.tasks.get(name) if outcome.score else None
        value = None
        if scored and task["metric"] in scored.metrics:
            value = scored.metrics[task["metric"]]["value"]
        verdict = verdicts.get((outcome.subject, name), "")
        found.append(
            {
                "value": score(value, task["unit"]),
                "by_byte": _by_byte(scored),
                "sort": value,
                "verdict": verdict,
                "incomplete": _incomplete(scored, task["items"]),
            }
        )
    return found


def _by_byte(scored: TaskScore | None) -> str:
    """A held-out loss in the unit that models with different tokenizers share; empty for other tasks."""
    found = scored.metrics.get(BITS_PER_BYTE) if scored and scored.primary_metric == "loss" else None
    return "" if found is None else f"{number(found['value'], 3)} bits per byte"


def _incomplete(scored: TaskScore | None, total: int) -> str:
    """35 of 100 items, where a run has not all items of a task."""
    if scored is None or scored.items >= total:
        return ""
    return f"{whole(scored.items)} of {whole(total)} items"


def _numbers(outcome: Outcome, loss_at_equal_tokens: float | None) -> dict[str, Any]:
    """The columns that sort by number, as texts, with the numbers under `sort`.

    A dash where there is none.
    """
    columns: dict[str, tuple[str, float | None]] = {"equal": (number(loss_at_equal_tokens), loss_at_equal_tokens)}
    columns |= dict.fromkeys(COUNTED, ("–", None))
    record = outcome.record
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
