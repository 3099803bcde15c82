"""Tables of external runs: one run per row, settings and scores in columns of many names."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loragrid.external.columns import ROW_NUMBERS, as_number, first_of, reason_against, setting_of
from loragrid.external.runs import ExternalResults, ExternalRun, ExternalScore, is_number
from loragrid.formatting import visible

NAME_COLUMNS = ("run", "name", "run_name", "id", "experiment", "experiment_name")
# Columns with the number of items behind the row's scores.
ITEMS = ("n", "items", "n_items", "num_items", "n_samples", "num_samples", "eval_samples", "n_eval", "total")
RIGHT = ("correct", "n_correct", "num_correct")
COUNTS = ITEMS[:-1]  # a total may be a score
# A table with a row per run and task.
TASK, VALUES, ERRORS = "task", ("value", "score"), ("stderr", "se", "std_err", "standard_error")
Row = dict[str, Any]


def read_table(path: Path) -> list[Row]:
    """The rows of a CSV or TSV file, None for empty cells."""
    import pandas as pd

    separator = "\t" if path.suffix.lower() == ".tsv" else None
    table = pd.read_csv(path, sep=separator, engine="python", encoding_errors="replace")
    # pandas would give empty cells as NaN.
    return table.astype(object).where(table.notna(), None).to_dict("records")


def add_rows(rows: list[Any], path: Path, results: ExternalResults) -> str | None:
    """Add rows, one per run or one per run and task; the reason if they hold nothing usable.

    A second row with the same name is another run, unless it is of another task.
    """
    rows = [row for row in rows if isinstance(row, dict)]
    if not rows:
        return "no rows with named columns"
    if any("doc_id" in row for row in rows):
        return "items of a run in an unknown format"
    used: set[str] = set()
    rows = [{str(key).strip().lower(): as_number(value) for key, value in row.items()} for row in rows]
    naming = _naming_column(rows)
    for number, named in enumerate(rows, start=1):
        name = name_of(named) or str(named.get(naming, "")) or f"{path.stem} row {number}"
        long = TASK in named and first_of(named, VALUES) is not None
        if name in used and not long:
            name = f"{name} (row {number})"
        run = ExternalRun(name)
        if long:
            named = _one_column(named)
        add_cells(run, named, results)
        if run.scores or run.settings:
            merge(run, results, path)
            used.add(name)
    return None if used else "neither settings nor scores in its columns"


def _naming_column(rows: list[Row]) -> str:
    """Of rows without names, the first column of texts that differ in every row; empty if there is none."""
    for column in rows[0] if len(rows) > 1 else ():
        values = [row.get(column) for row in rows]
        if all(isinstance(value, str) and value for value in values) and len(set(values)) == len(values):
            return column
    return ""


def merge(run: ExternalRun, results: ExternalResults, path: Path) -> None:
    """Add settings and scores from a file to those known of the run."""
    known = results.runs.setdefault(run.name, ExternalRun(run.name))
    known.settings |= run.settings
    known.other_settings |= run.other_settings
    known.scores |= run.scores
    known.files.append(path.name)


def add_cells(run: ExternalRun, row: Row, results: ExternalResults) -> None:
    """Add the cells of a row with lower-case names to a run; columns that are not used to `results`."""
    for key, value in row.items():
        reason = _add_cell(run, key, value, row)
        if reason:
            results.columns.setdefault(visible(key, 80), reason)
    _add_only_error(run, row)
    right, items = first_of(row, RIGHT), first_of(row, ITEMS)
    if right is not None and items and right <= items:
        run.scores["accuracy", ""] = ExternalScore(right / items, None, int(items))


def _add_only_error(run: ExternalRun, row: Row) -> None:
    """A column that is only called “stderr” belongs to the only score of a row."""
    error = first_of(row, ERRORS)
    if error is not None and len(run.scores) == 1:
        ((key, score),) = run.scores.items()
        run.scores[key] = replace(score, stderr=score.stderr if score.stderr is not None else float(error))


def name_of(row: Row) -> str:
    """The run's name by the first name column that is filled, or by an index of names."""
    named = next((row[column] for column in NAME_COLUMNS if row.get(column) not in (None, "")), None)
    if named is not None:
        return str(named)
    index = next((value for key, value in row.items() if ROW_NUMBERS.fullmatch(key)), None)
    return index if isinstance(index, str) else ""


def _one_column(row: Row) -> Row:
    """A row of one task as if its task and metric were a column."""
    metric = row.get("metric") or ""
    column = f"{row[TASK]} {metric}".strip().lower()
    kept = {key: value for key, value in row.items() if key not in (TASK, "metric", *VALUES, *ERRORS)}
    return kept | {column: first_of(row, VALUES), f"{column}_stderr": first_of(row, ERRORS)}


def _add_cell(run: ExternalRun, key: str, value: Any, row: Row) -> str | None:
    """Add one cell to the run; the reason if its column is not used."""
    if value is None or value == "" or key in NAME_COLUMNS:
        return None
    setting = setting_of(key, value)
    if setting is not None:
        run.settings[setting[0]] = setting[1]
        return None
    # Read together with their scores.
    if key.endswith(("stderr", "_se")) or key in ITEMS or key in RIGHT or _counts_items(key, row):
        return None
    reason = reason_against(key, value)
    if reason is None:
        items = first_of(row, (f"{key}_n", f"n_{key}", *_of_group(key, row, COUNTS), *ITEMS))
        run.scores[key, ""] = ExternalScore(
            float(value), _stderr_of(key, row), int(items) if items and items >= 1 else None
        )
    elif ROW_NUMBERS.fullmatch(key) and isinstance(value, str):
        return None
    return reason


def _stderr_of(key: str, row: Row) -> float | None:
    """The standard error of a score by the column beside it."""
    beside = _of_group(key, row, ERRORS)
    error = first_of(row, (f"{key}_stderr", f"{key} stderr", f"{key}_se", f"{key}/stderr", *beside))
    return float(error) if is_number(error) else None


def _counts_items(key: str, row: Row) -> bool:
    """Whether a column is the number of items of a score beside it: “acc_n”, or “mmlu n” of a nested file."""
    if key.removesuffix("_n") in row.keys() - {key} or key.removeprefix("n_") in row.keys() - {key}:
        return True
    group, _, last = key.rpartition(" ")
    return bool(group) and last in COUNTS and len(_scores_of_group(group, row)) > 0


def _of_group(key: str, row: Row, names: Sequence[str]) -> list[str]:
    """Columns of a group whose only score is this one: “mmlu stderr” beside “mmlu accuracy”."""
    group = key.rpartition(" ")[0]
    if not group or len(_scores_of_group(group, row)) > 1:
        return []
    return [f"{group} {name}" for name in names]


def _scores_of_group(group: str, row: Row) -> list[str]:
    parts = {key: key.rpartition(" ") for key in row}
    return [key for key, part in parts.items() if part[0] == group and part[2] not in (*COUNTS, *ERRORS)]
