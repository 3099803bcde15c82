"""Scores without the contaminated items, those that share an 8-gram with the rows that a run was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.study_results import StudyResults
from loragrid.errors import UserError
from loragrid.records.outcomes import Outcome
from loragrid.runtime.atomic_files import read_json
from loragrid.statistics.clustered_means import mean_interval
from loragrid.study.training_sets import training_sets

# Lists of item names, which compare.json does not repeat.
NAMES = ("items_8", "items_13")
OF_SET = ("data_id", "rows", "method", "not_checked")


def contamination(results: StudyResults, confidence: float) -> dict[str, Any]:
    """Data set → what find_contamination found in it, with scores for every task that has contaminated items.

    A task's `scores` hold one dict for each scored run on the data set and each base of these runs:
    its score on all items (`value`), on the `other_items` that are not contaminated (`other_value`
    with `low` and `high`), and the `difference`, other minus all. `base_case` holds the same for
    the mean over the seeds of the base case, or of the base case on this data set; it is None if
    there is no such run. Data sets that are not looked through yet are left out.
    """
    found = {}
    for name, data in training_sets(results.study).items():
        path = results.folder / "find_contamination" / f"{data}.json"
        if path.is_file():
            found[name] = _of_set(results, name, path, confidence)
    return found


def _of_set(results: StudyResults, name: str, path: Path, confidence: float) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not {*OF_SET, "tasks"} <= content.keys():
        raise UserError(f"{path}: not a file that find_contamination wrote. Fix: delete it and run snakemake again.")
    runs = [o for o in results.outcomes if o.kind == "run" and o.cell.settings.data == name]
    bases = {run.base for run in runs}
    trained = [o.subject for o in runs if o.status == "scored"]
    subjects = [o.subject for o in results.outcomes if o.kind == "base" and o.subject in bases] + trained
    tasks = {}
    for task, facts in content["tasks"].items():
        tasks[task] = {key: value for key, value in facts.items() if key not in NAMES}
        if facts["contaminated_8"] and task in results.tables:
            table = results.tables[task]
            clean = ~np.isin(table.items.astype(str), facts["items_8"])
            tasks[task]["scores"] = _scores(table, clean, subjects, confidence)
            tasks[task]["base_case"] = _mean_score(table, clean, _base_case(runs), confidence)
    kept = {key: content[key] for key in OF_SET}
    return kept | {"tasks": tasks}


def _base_case(runs: Sequence[Outcome]) -> list[str]:
    """The scored runs that depart from the base case in nothing but the data and the seed."""
    return [run.subject for run in runs if run.status == "scored" and set(run.cell.arm) <= {"data"}]


def _scores(table: ItemTable, clean: np.ndarray, subjects: Sequence[str], confidence: float) -> list[dict[str, Any]]:
    known = [subject for subject in subjects if subject in table.values]
    return [{"subject": subject} | _score(table, table.values[subject], clean, confidence) for subject in known]


def _mean_score(table: ItemTable, clean: np.ndarray, runs: Sequence[str], confidence: float) -> dict[str, Any] | None:
    """The score of the mean of several seeds, item by item; its interval covers other items, not other seeds."""
    values = [table.values[run] for run in runs if run in table.values]
    if not values:
        return None
    return {"seeds": len(values)} | _score(table, np.mean(values, axis=0), clean, confidence)


def _score(table: ItemTable, values: np.ndarray, clean: np.ndarray, confidence: float) -> dict[str, Any]:
    """The mean of the values on all items and on the clean ones; NaN where there is none."""
    scored = ~np.isnan(values)
    others = scored & clean
    row = {"items": int(scored.sum()), "other_items": int(others.sum()), "value": np.nan}
    row |= dict.fromkeys(("other_value", "low", "high"), np.nan)
    if scored.any():
        row["value"] = float(values[scored].mean())
    if others.any():
        interval = mean_interval(
            values[others], weights=None, clusters=table.clusters_of(others), confidence=confidence
        )
        row |= {"other_value": interval["value"], "low": interval["low"], "high": interval["high"]}
    return row | {"difference": row["other_value"] - row["value"]}
