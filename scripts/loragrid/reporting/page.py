"""What goes into the report's page, section by section, as plain values for the templates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from loragrid.comparing.axis_effects import COMPARED_AXES, axis_text
from loragrid.errors import UserError
from loragrid.formatting import (
    AXIS_NAMES,
    duration,
    listed,
    number,
    plain_name,
    plural,
    score,
    setting,
    visible,
    whole,
)
from loragrid.records.outcomes import STATUSES, Outcome, data_cards
from loragrid.reporting.findings import ComparedStudy
from loragrid.runtime.atomic_files import read_json
from loragrid.study.study_file import Study


@dataclass(frozen=True)
class Material:
    """All that the page is made from, read once."""

    study: Study
    results: Path
    outcomes: list[Outcome]
    compared: ComparedStudy
    scores: pd.DataFrame
    runs: pd.DataFrame
    cards: dict[str, dict[str, Any]]


def gather(study: Study, results: Path, outcomes: list[Outcome]) -> Material:
    """Read what compare left. A missing table is a `UserError`: compare comes first."""
    folder = results / "compare"
    summary = read_json(folder / "compare.json")
    labels, setting_labels = ({o.subject: label(o, seed=seed) for o in outcomes} for seed in (True, False))
    case = tuple(o.subject for o in outcomes if o.cell and not set(o.cell.departs) - {"seed"})
    tables = (read_table(folder / f"{name}.csv") for name in ("comparisons", "axes"))
    compared = ComparedStudy(summary, *tables, labels, setting_labels, case)
    runs = read_table(folder / "runs.csv").set_index("subject")
    return Material(
        study, results, outcomes, compared, read_table(folder / "scores.csv"), runs, data_cards(study, results)
    )


def read_table(path: Path) -> pd.DataFrame:
    """A CSV of compare; texts stay texts, an empty verdict stays empty, a table without rows is an empty frame."""
    try:
        table = pd.read_csv(path, dtype={"value": str, "base_case_value": str} if path.stem == "axes" else None)
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=["task", "group", "run", "axis", "verdict", "improvement"])
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run compare first") from None
    if "verdict" in table:
        table["verdict"] = table["verdict"].fillna("")
    return table


def label(outcome: Outcome, *, seed: bool = True) -> str:
    """A run by what sets it apart: base case, learning rate 0.1, gemma-s; without its seed it is a setting."""
    if outcome.cell is None:
        return f"untrained {outcome.model}"
    parts = []
    for axis, value in outcome.cell.departs.items():
        if axis == "seed" and not seed:
            continue
        text = (
            setting(value) if axis == "learning_rate" else axis_text(axis, tuple(value) if axis == "batch" else value)
        )
        parts.append(text if axis == "model" else f"{AXIS_NAMES[axis]} {text}")
    return visible(", ".join(parts)) or "base case"


def asked(material: Material) -> list[str]:
    """What was asked, in sentences: the grid, the training, the scoring."""
    study = material.study
    runs = [o for o in material.outcomes if o.cell and "search" not in o.cell.departs]
    case = study.base_case
    axes = [AXIS_NAMES[axis] for axis in COMPARED_AXES if len({getattr(o.cell, axis) for o in runs}) > 1]
    design = "every combination of" if study.grid.design == "factorial" else "single departures from it in"
    budget = study.training.budget
    seeds = sorted({o.cell.seed for o in runs})
    targets, kept = study.scoring.target, study.scoring.retention
    return [
        f"{plural(len(runs), 'LoRA run')}: a base case (model {visible(case.model)}, learning rate "
        f"{setting(case.learning_rate)}, rank {case.rank}, batch {axis_text('batch', case.batch)}) and "
        f"{design} {listed(axes) or 'nothing'}.",
        f"Each trains on {plural(budget.amount, budget.unit.removesuffix('s'))} and is then scored, beside its untrained base, "
        f"on {plural(len(targets), 'target task')} ({_names(targets)}) that training should improve"
        + (f", and on {plural(len(kept), 'retention task')} ({_names(kept)}) to see what it forgets." if kept else "."),
        f"{'Seed' if len(seeds) == 1 else 'Seeds'}: {listed([str(seed) for seed in seeds])}.",
    ]


def _names(tasks: Sequence[str]) -> str:
    return listed([plain_name(Path(task).stem) for task in tasks])


def run_rows(material: Material) -> list[dict[str, Any]]:
    """The table of all runs and bases, failed and missing ones with their reason."""
    tasks = material.compared.summary["tasks"]
    table = material.compared.comparisons
    verdicts = {
        (run, row.task): row.verdict for row in table.itertuples() for run in row.runs.split()
    }  # a setting's verdict is that of all its seeds together
    rows = []
    for outcome in material.outcomes:
        cell, record = outcome.cell, outcome.record
        equal = _cell(material.runs, outcome.subject, "heldout_loss_at_equal_tokens")
        found = []
        for name, task in tasks.items():
            scored = outcome.score.tasks.get(name) if outcome.score else None
            value = scored.metrics[task["metric"]]["value"] if scored and task["metric"] in scored.metrics else None
            told = verdicts.get((outcome.subject, name), "")
            found.append({"value": score(value, task["unit"]), "sort": value, "verdict": told})
        rows.append(
            {
                "subject": outcome.subject,
                "label": material.compared.labels[outcome.subject],
                "kind": outcome.kind,
                "model": visible(outcome.model),
                "learning_rate": setting(cell.learning_rate) if cell else "–",
                "rank": cell.rank if cell else "–",
                "batch": axis_text("batch", cell.batch) if cell else "–",
                "seed": cell.seed if cell else "–",
                "status": outcome.status,
                "status_text": STATUSES[outcome.status]
                if cell
                else "scored"
                if outcome.status == "scored"
                else outcome.status,
                "reason": visible(outcome.reason or "", 300),
                "notes": [visible(note, 300) for made in (record, outcome.score) if made for note in made.notes],
                "scores": found,
                "equal": number(equal),
                "updates": whole(record.steps) if record else "–",
                "tokens": whole(record.tokens) if record else "–",
                "seconds": duration(record.train_seconds) if record else "–",
                "sort": {
                    "learning_rate": cell.learning_rate if cell else None,
                    "rank": cell.rank if cell else None,
                    "batch": cell.batch[0] * cell.batch[1] if cell else None,
                    "seed": cell.seed if cell else None,
                    "equal": equal,
                    "updates": record.steps if record else None,
                    "tokens": record.tokens if record else None,
                    "seconds": record.train_seconds if record else None,
                },
            }
        )
    return rows


def _cell(table: pd.DataFrame, subject: str, column: str) -> float | None:
    """A number of a table, None where it is not there."""
    value = float(table.at[subject, column]) if column in table and subject in table.index else math.nan
    return value if math.isfinite(value) else None


def diagnosis_rows(material: Material) -> list[dict[str, Any]]:
    """Per run with a fault: its label and causes."""
    labels = material.compared.labels
    return [
        {"label": labels[run], "causes": causes}
        for run, causes in material.compared.summary["diagnoses"].items()
        if causes and run in labels
    ]


def healthy_runs(material: Material) -> list[str]:
    """Labels of the trained runs in which no fault was found, with the checks that could not be made."""
    labels, notes = material.compared.labels, dict(material.compared.summary["unmade_checks"])
    for row in material.compared.summary["trade_offs"]:
        if row["likely_lost"]:
            told = f"a loss beyond the margin is likely on {listed([plain_name(task) for task in row['likely_lost']])}"
            notes |= {run: "; ".join(filter(None, (notes.get(run), told))) for run in row["runs"].split()}
    return [
        f"{labels[run]} ({notes[run]})" if run in notes else labels[run]
        for run, causes in material.compared.summary["diagnoses"].items()
        if not causes and run in labels
    ]


def base_fault_rows(material: Material) -> list[dict[str, Any]]:
    """Per base with a fault: its label and causes, for the note above all comparisons."""
    labels = material.compared.labels
    return [
        {"label": labels[base], "causes": causes}
        for base, causes in material.compared.summary["base_faults"].items()
        if base in labels
    ]
