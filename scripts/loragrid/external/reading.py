"""Reads external runs: tables, a transformers Trainer's state, lm-eval's results and items.

In a folder of runs each subfolder is a run and names it; a file directly in the folder belongs to a
run named after the file; the rows of a table belong to the runs that they name.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.comparing.diagnosing.run_evidence import LossPath
from loragrid.errors import UserError, one_line
from loragrid.external.lm_eval_files import (
    DATE,
    add_item_means,
    add_results,
    add_samples,
    is_sample,
)
from loragrid.external.runs import ExternalResults, ExternalRun, as_float, is_number
from loragrid.external.tables import add_rows, add_table
from loragrid.formatting import visible

READ_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")
MOST_FILES = 5000
LARGEST_BYTES = 256 * 2**20
# The folders that a Trainer saves to are parts of a run.
CHECKPOINT = re.compile(r"checkpoint-\d+")
# Setting of a Trainer's state → our name for it.
STATE_SETTINGS = {"num_train_epochs": "epochs", "train_batch_size": "batch", "max_steps": "steps"}


def read_external(source: Path) -> ExternalResults:
    """Read a file or a folder. Raises `UserError` if it holds no run."""
    results = ExternalResults({}, [], {})
    for path in _files(source):
        reason = _read_file(path, _run_name(path, source), results)
        if reason:
            name = path.stem if path == source else str(path.relative_to(source))
            results.unused.append((visible(name, 200), reason))
    if not results.runs:
        why = f" ({results.unused[0][1]})" if results.unused else ""
        raise UserError(f"{source}: no run found{why}. Fix: name files listed in docs/results-from-elsewhere.md")
    for run in results.runs.values():
        add_item_means(run)
    return results


def _files(source: Path) -> list[Path]:
    """The files that may hold runs, in the order in which later ones replace earlier ones."""
    if not source.exists():
        raise UserError(f"{source}: no such file or folder. Fix: name a table or a folder of results")
    if source.is_file():
        files = [source]
    else:
        files = sorted((path for path in source.rglob("*") if path.is_file()), key=_by_number)
    files = [path for path in files if path.suffix.lower() in READ_SUFFIXES]
    if len(files) > MOST_FILES:
        fix = f"name a folder of at most {MOST_FILES} files"
        raise UserError(f"{source}: too many files ({len(files)}). Fix: {fix}")
    return files


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sorts numbers in a path by their value: checkpoint-1000 comes after checkpoint-500."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _run_name(path: Path, source: Path) -> str:
    """The run of a file: its first folder below the source that is no checkpoint, or the file's name."""
    parents = path.relative_to(source).parts[:-1]
    folders = [part for part in parents if not CHECKPOINT.fullmatch(part)]
    if folders:
        return folders[0]
    in_checkpoint = path != source and path.parent != source
    # A Trainer calls every run's state the same, so its folder names the run.
    if in_checkpoint or (path != source and path.name == "trainer_state.json"):
        return source.name
    # lm-eval writes the items beside the results of the same moment: both belong to one run.
    return re.sub(rf"^samples_.+_({DATE})$", r"results_\1", path.stem)


def _read_file(path: Path, name: str, results: ExternalResults) -> str | None:
    """Add the content of a file to `results`; the reason if it holds nothing usable."""
    if path.stat().st_size > LARGEST_BYTES:
        return f"larger than {LARGEST_BYTES // 2**20} MiB"
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            return add_table(path, results)
        if path.suffix.lower() == ".jsonl":
            return _read_lines(path, name, results)
        content = json.loads(path.read_text(encoding="utf-8"))
    # RecursionError: JSON may nest deeper than Python's parser can follow.
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, csv.Error) as error:
        return one_line(f"cannot be read: {error}")[:200]
    if isinstance(content, list):
        return add_rows(content, path, results)
    if isinstance(content, dict) and isinstance(content.get("log_history"), list):
        return _add_trainer_state(content, results.runs.setdefault(name, ExternalRun(name)), path)
    if isinstance(content, dict) and isinstance(content.get("results"), dict):
        return add_results(content, results.runs.setdefault(name, ExternalRun(name)), path)
    return "neither a table of runs, nor a trainer_state.json, nor lm-eval results"


def _read_lines(path: Path, name: str, results: ExternalResults) -> str | None:
    """A JSONL file: lm-eval's items if its first line is one, else a row per run."""
    if is_sample(_first_row(path)):
        return add_samples(path, results.runs.setdefault(name, ExternalRun(name)))
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return add_rows(rows, path, results)


def _first_row(path: Path) -> Any:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                return json.loads(line)
    return None


def _add_trainer_state(content: dict[str, Any], run: ExternalRun, path: Path) -> str | None:
    """Add the losses and settings of a Trainer's state; the reason if it holds no loss."""
    rows = [row for row in content["log_history"] if isinstance(row, dict)]
    rows = [row for row in rows if is_number(row.get("step"))]
    run.files.append(path.name)
    losses = [row for row in rows if "loss" in row or "eval_loss" in row]
    if not losses:
        return "no loss in its log_history"
    step = max(float(row["step"]) for row in rows)
    # Of several checkpoints' states the last one holds the history of all.
    if step < run.path_step:
        return None
    run.path_step = step
    run.path_unit, at = "steps", "step"
    if all(is_number(row.get("num_input_tokens_seen")) for row in losses):
        run.path_unit, at = "tokens", "num_input_tokens_seen"
    run.path = _loss_path(losses, at)
    # The highest logged rate: with warm-up and a schedule this is the one that was set, or nearly.
    rates = [row["learning_rate"] for row in rows if is_number(row.get("learning_rate"))]
    if rates:
        run.settings.setdefault("learning_rate", max(rates))
    for key, name in STATE_SETTINGS.items():
        if is_number(content.get(key)):
            run.settings.setdefault(name, content[key])
    return None


def _loss_path(rows: list[dict[str, Any]], at: str) -> LossPath:
    """The rows' losses over the values of their key `at`."""
    train, heldout = (_columns(rows, at, key) for key in ("loss", "eval_loss"))
    return LossPath(train[:, 0], train[:, 1], train[:, 2], heldout[:, 0], heldout[:, 1])


def _columns(rows: list[dict[str, Any]], at: str, key: str) -> np.ndarray:
    """Place, loss and gradient norm (N, 3) of the rows that have a loss under `key`."""
    found = [(row[at], row[key], row.get("grad_norm")) for row in rows if key in row]
    table = [(float(place), as_float(loss), as_float(norm)) for place, loss, norm in found]
    return np.array(table, dtype=float).reshape(-1, 3)
