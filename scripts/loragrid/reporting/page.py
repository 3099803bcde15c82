"""Everything that the report is made from, read once, and the sentences on what the study asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from loragrid.comparing.study_results import SCHEMA
from loragrid.errors import UserError
from loragrid.formatting import listed, plain_name, plural, visible
from loragrid.records.outcomes import Outcome, data_cards
from loragrid.records.seal import check_sealed
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.runtime.atomic_files import read_json
from loragrid.setting_texts import axis_name, axis_value
from loragrid.study.cell_pairs import study_axes
from loragrid.study.completion import setting_names
from loragrid.study.grid import ARMS
from loragrid.study.run_names import value_text
from loragrid.study.settings import Settings
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
    check_sealed(folder)
    compared = _compared_study(study, folder, outcomes)
    scores = read_table(folder / "scores.csv")
    runs = read_table(folder / "runs.csv").set_index("subject")
    return Material(study, results, outcomes, compared, scores, runs, data_cards(study, results))


def _compared_study(study: Study, folder: Path, outcomes: list[Outcome]) -> ComparedStudy:
    summary = read_json(folder / "compare.json")
    if summary.get("schema") != SCHEMA:
        raise UserError(f"{folder / 'compare.json'}: written by another version of compare. Fix: run compare again")
    others = [row["run"] for row in summary["trade_offs"] if row["run"] not in {one.subject for one in outcomes}]
    if others:
        raise UserError(
            f"{folder / 'compare.json'}: holds runs that the study lacks ({others[0]}). Fix: run compare again"
        )
    return ComparedStudy(
        summary,
        comparisons=read_table(folder / "comparisons.csv"),
        axes=read_table(folder / "axes.csv"),
        labels={outcome.subject: label(study, outcome) for outcome in outcomes},
        setting_labels={outcome.subject: label(study, outcome, seed=False) for outcome in outcomes},
        base_case_runs=tuple(o.subject for o in outcomes if o.kind == "run" and not o.cell.arm),
        axis_names=axis_names(study),
        adopted=tuple(study.adopted),
    )


def axis_names(study: Study) -> dict[str, str]:
    """Axis → its name on the page.

    Rank never changes alone: either alpha changes too, or the factor alpha/rank does.
    """
    alpha = study.yaml["base_case"]["alpha"]
    beside = "with alpha" if isinstance(alpha, str) else "at fixed alpha"
    names = {axis: axis_name(axis) for axis in (*setting_names(), *ARMS)}
    return names | {"rank": f"rank ({beside})"}


def read_table(path: Path) -> pd.DataFrame:
    """A CSV of compare. Raises `UserError` when it is missing.

    Axis values stay texts, an empty verdict stays empty, and a table without rows is an empty
    frame.
    """
    types = {"value": str, "base_case_value": str} if path.stem == "axes" else None
    try:
        table = pd.read_csv(path, dtype=types)
    except pd.errors.EmptyDataError:
        columns = ["task", "group", "family", "level", "run", "seeds", "axis", "verdict", "improvement"]
        return pd.DataFrame(columns=columns)
    except FileNotFoundError:
        raise UserError(f"{path}: file not found. Fix: run compare first") from None
    if "verdict" in table:
        table["verdict"] = table["verdict"].fillna("")
    return table


def label(study: Study, outcome: Outcome, *, seed: bool = True) -> str:
    """A run named by its departures from the base case: "learning rate 0.1", "gemma-s".

    Without the seed it names the run's setting.
    """
    if outcome.kind == "base":
        return _base_label(study, outcome)
    if outcome.kind == "adopted":
        known = study.adopted.get(outcome.subject)
        return f"adopted {visible(known.key if known else outcome.subject, 40)}"
    departs = outcome.cell.departs if seed else outcome.cell.arm
    return ", ".join(departure_text(axis, value) for axis, value in departs.items()) or "base case"


def _base_label(study: Study, outcome: Outcome) -> str:
    """The base, with its precision if the study has the model in several."""
    precisions = {base: cell.settings.precision for base, cell in study.bases.items() if cell.model == outcome.model}
    text = f"base {visible(outcome.model)}"
    if len(precisions) > 1 and outcome.subject in precisions:
        text += f" ({precisions[outcome.subject]})"
    return text


def departure_text(axis: str, value: Any) -> str:
    """One departure from the base case: "rank 64", and names by themselves."""
    text = axis_value(axis, value_text(value))
    if axis in BY_THEMSELVES:
        return text
    return f"{axis_name(axis)} {text}"


# Axes whose values need no word before them.
BY_THEMSELVES = ("model", "data", "method", "tied", "cells")


def asked(material: Material) -> list[str]:
    """Sentences on what the study asked: the grid, the training and scoring, the seeds."""
    runs = [o for o in material.outcomes if o.kind == "run" and "search" not in o.cell.departs]
    seeds = listed([str(seed) for seed in sorted({o.cell.settings.seed for o in runs})])
    name = "Seeds" if "and" in seeds else "Seed"
    sentences = [_grid(material.study, runs), _training_and_scoring(material.study), f"{name}: {seeds}."]
    if material.study.left_out:
        text = " ".join(material.study.left_out.split())
        sentences.append(f"Left out: {visible(text)}")
    return sentences


def _grid(study: Study, runs: list[Outcome]) -> str:
    case, raw = study.base_case, study.yaml["base_case"]
    design = _departures(runs)
    if study.grid.design == "factorial":
        design = "every combination of"
    axes = [axis for axis in study_axes(study) if axis not in ARMS]
    # What every study has, and what this one varies.
    named = [name for name in setting_names() if name in CORE_SETTINGS or name in axes]
    shown = [f"{axis_name(name)} {axis_value(name, value_text(raw[name]))}" for name in named if has(case, name)]
    arms = sum(1 for cell in {str(o.cell.arm): o.cell for o in runs}.values() if set(cell.arm) & set(ARMS))
    parts = [f"a base case ({', '.join(shown)})"]
    if axes:
        parts.append(f"{design} {listed([axis_name(axis) for axis in axes])}")
    if arms:
        parts.append(plural(arms, "arm of several settings", "arms of several settings"))
    if study.adopt:
        parts.append(plural(len(study.adopt), "adopted adapter"))
    return f"{plural(len(runs), 'training run')}: {listed(parts)}."


CORE_SETTINGS = ("model", "method", "learning_rate", "rank", "batch")


def has(case: Settings, name: str) -> bool:
    """Whether a run has the setting; full fine-tuning has no rank."""
    return getattr(case, name) is not None


def _departures(runs: list[Outcome]) -> str:
    """How a one-factor grid departs from its base case."""
    arms = {str(o.cell.arm) for o in runs if o.cell.arm and not set(o.cell.arm) & set(ARMS)}
    return "one departure from it in" if len(arms) == 1 else "single departures from it in"


def _training_and_scoring(study: Study) -> str:
    budget, targets, kept = study.base_case.budget, study.scoring.target, study.scoring.retention
    length = axis_value("budget", value_text(study.yaml["base_case"]["budget"]))
    verb = "trains on" if budget.unit == "tokens" else "trains for"
    who = "The base case" if "budget" in study_axes(study) else "Each"
    trains = f"{who} {verb} {length}"
    scored = f"{plural(len(targets), 'target task')} ({_names(targets)}) that training should improve"
    if kept:
        scored += f", and on {plural(len(kept), 'retention task')} ({_names(kept)}) to see what it forgets"
    return f"{trains} and is then scored, beside its untrained base, on {scored}."


def _names(tasks: Sequence[str]) -> str:
    return listed([plain_name(Path(task).stem) for task in tasks])
