"""Everything that the report is made from, read once, and the sentences on what the study asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from loragrid.comparing.axis_effects import COMPARED_AXES, axis_text
from loragrid.comparing.study_results import SCHEMA
from loragrid.errors import UserError
from loragrid.formatting import (
    AXIS_NAMES,
    listed,
    plain_name,
    plural,
    setting,
    visible,
)
from loragrid.records.outcomes import Outcome, data_cards
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.runtime.atomic_files import read_json
from loragrid.study.study_file import Study


@dataclass(frozen=True)
class Material:
    """Everything that the page is made from.

    `scores` and `runs` are compare's tables (`runs` by subject); `cards` maps a data id to its data
    card.
    """

    study: Study
    results: Path
    outcomes: list[Outcome]
    compared: ComparedStudy
    scores: pd.DataFrame
    runs: pd.DataFrame
    cards: dict[str, dict[str, Any]]


def gather(study: Study, results: Path, outcomes: list[Outcome]) -> Material:
    """Read the records and what compare wrote.

    Raises `UserError` when compare has not run, or was another version.
    """
    folder = results / "compare"
    compared = _compared_study(study, folder, outcomes)
    scores = read_table(folder / "scores.csv")
    runs = read_table(folder / "runs.csv").set_index("subject")
    return Material(study, results, outcomes, compared, scores, runs, data_cards(study, results))


def _compared_study(study: Study, folder: Path, outcomes: list[Outcome]) -> ComparedStudy:
    summary = read_json(folder / "compare.json")
    if summary.get("schema") != SCHEMA:
        raise UserError(f"{folder / 'compare.json'}: written by another version of compare. Fix: run compare again")
    return ComparedStudy(
        summary,
        comparisons=read_table(folder / "comparisons.csv"),
        axes=read_table(folder / "axes.csv"),
        labels={outcome.subject: label(outcome) for outcome in outcomes},
        setting_labels={outcome.subject: label(outcome, seed=False) for outcome in outcomes},
        base_case_runs=tuple(o.subject for o in outcomes if o.cell and not set(o.cell.departs) - {"seed"}),
        axis_names=axis_names(study),
    )


def axis_names(study: Study) -> dict[str, str]:
    """Axis → its name on the page.

    Rank never changes alone: either alpha changes too, or the factor alpha/rank does.
    """
    beside = "with alpha" if study.training.alpha == "rank" else "at fixed alpha"
    return AXIS_NAMES | {"rank": f"rank ({beside})"}


def read_table(path: Path) -> pd.DataFrame:
    """A CSV of compare. Raises `UserError` when it is missing.

    Axis values stay texts, an empty verdict stays empty, and a table without rows is an empty
    frame.
    """
    types = {"value": str, "base_case_value": str} if path.stem == "axes" else None
    try:
        table = pd.read_csv(path, dtype=types)
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=["task", "group", "run", "axis", "verdict", "improvement"])
    except FileNotFoundError:
        raise UserError(f"{path}: file not found. Fix: run compare first") from None
    if "verdict" in table:
        table["verdict"] = table["verdict"].fillna("")
    return table


def label(outcome: Outcome, *, seed: bool = True) -> str:
    """A run named by its departures from the base case: "learning rate 0.1", "gemma-s".

    Without the seed it names the run's setting.
    """
    if outcome.cell is None:
        return f"untrained {outcome.model}"
    parts = []
    for axis, value in outcome.cell.departs.items():
        if axis == "seed" and not seed:
            continue
        text = setting(value) if axis == "learning_rate" else axis_text(axis, value)
        parts.append(text if axis == "model" else f"{AXIS_NAMES[axis]} {text}")
    return visible(", ".join(parts)) or "base case"


def asked(material: Material) -> list[str]:
    """Sentences on what the study asked: the grid, the training and scoring, the seeds."""
    runs = [o for o in material.outcomes if o.cell and "search" not in o.cell.departs]
    seeds = listed([str(seed) for seed in sorted({o.cell.seed for o in runs})])
    name = "Seeds" if "and" in seeds else "Seed"
    return [_grid(material.study, runs), _training_and_scoring(material.study), f"{name}: {seeds}."]


def _grid(study: Study, runs: list[Outcome]) -> str:
    case, design = study.base_case, "single departures from it in"
    if study.grid.design == "factorial":
        design = "every combination of"
    varied = [axis for axis in COMPARED_AXES if len({getattr(o.cell, axis) for o in runs}) > 1]
    axes = listed([AXIS_NAMES[axis] for axis in varied]) or "nothing"
    base_case = (
        f"model {visible(case.model)}, learning rate {setting(case.learning_rate)}, rank {case.rank}, "
        f"batch {axis_text('batch', case.batch)}"
    )
    return f"{plural(len(runs), 'LoRA run')}: a base case ({base_case}) and {design} {axes}."


def _training_and_scoring(study: Study) -> str:
    budget, targets, kept = study.training.budget, study.scoring.target, study.scoring.retention
    trains = f"Each trains on {plural(budget.amount, budget.unit.removesuffix('s'))}"
    scored = f"{plural(len(targets), 'target task')} ({_names(targets)}) that training should improve"
    if kept:
        scored += f", and on {plural(len(kept), 'retention task')} ({_names(kept)}) to see what it forgets"
    return f"{trains} and is then scored, beside its untrained base, on {scored}."


def _names(tasks: Sequence[str]) -> str:
    return listed([plain_name(Path(task).stem) for task in tasks])
