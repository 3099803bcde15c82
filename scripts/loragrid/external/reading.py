"""Finished runs from elsewhere: a table of settings and scores, trainer_state.json files, lm-eval result files.

Each file is recognised by what it holds. A folder's sub-folders are runs named after them; files that lie in the folder
itself belong to runs named after the file, and a table's rows to the runs they name.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.comparing.run_evidence import LossPath
from loragrid.errors import UserError, one_line
from loragrid.external.lm_eval_files import DATE, add_item_means, add_results, add_samples, is_sample
from loragrid.external.runs import ExternalResults, ExternalRun, as_float, is_number
from loragrid.external.tables import add_rows, read_table
from loragrid.formatting import visible

MOST_FILES = 5000
LARGEST_BYTES = 256 * 2**20
CHECKPOINT = re.compile(r"checkpoint-\d+")  # the folders in which a Trainer saves: parts of a run, no runs


def read_external(source: Path) -> ExternalResults:
    """Read a folder or a single file; nothing usable in it is a `UserError`."""
    if not source.exists():
        raise UserError(f"{source} does not exist: give a table, a results file or a folder of them")
    files = [source] if source.is_file() else sorted((p for p in source.rglob("*") if p.is_file()), key=_by_number)
    files = [path for path in files if path.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl")]
    if len(files) > MOST_FILES:
        raise UserError(f"{source} holds {len(files)} files: give a folder of at most {MOST_FILES}")
    results = ExternalResults({}, [], {})
    for path in files:
        name = path.stem if path == source else str(path.relative_to(source))
        reason = _read_file(path, _run_name(path, source), results)
        if reason:
            results.unused.append((visible(name, 200), reason))
    if not results.runs:
        why = f" ({results.unused[0][1]})" if results.unused else ""
        raise UserError(
            f"{source} holds no run{why}: see README, 'Search, app, results from elsewhere', for the files that are read"
        )
    for run in results.runs.values():
        add_item_means(run)
    return results


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Order in which checkpoint-1000 comes after checkpoint-500: what is read later replaces what was read before."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _run_name(path: Path, source: Path) -> str:
    """The first folder below the source names the run, if it is no checkpoint; for a file that lies in the source itself,
    its own name does, and items go with the results of the same moment."""
    folders = [part for part in path.relative_to(source).parts[:-1] if not CHECKPOINT.fullmatch(part)]
    if folders:
        return folders[0]
    if path != source and (path.parent != source or path.name == "trainer_state.json"):
        return source.name
    return re.sub(rf"^samples_.+_({DATE})$", r"results_\1", path.stem)


def _read_file(path: Path, name: str, results: ExternalResults) -> str | None:
    """Add what a file holds to `results`; a reason if it holds nothing we know."""
    if path.stat().st_size > LARGEST_BYTES:
        return f"larger than {LARGEST_BYTES // 2**20} MiB"
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            return read_table(path, results)
        if path.suffix.lower() == ".jsonl":
            return _read_lines(path, name, results)
        content = json.loads(path.read_text(encoding="utf-8"))
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
    """A JSONL file: items of lm-eval, told by the first line, or a row per run."""
    with path.open(encoding="utf-8") as lines:
        first = next((json.loads(line) for line in lines if line.strip()), None)
    if is_sample(first):
        return add_samples(path, results.runs.setdefault(name, ExternalRun(name)))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return add_rows(rows, path, results)


def _add_trainer_state(content: dict[str, Any], run: ExternalRun, path: Path) -> str | None:
    """Loss path of a transformers Trainer: `loss` and `eval_loss` rows by step, tokens where they were counted."""
    rows = [row for row in content["log_history"] if isinstance(row, dict) and is_number(row.get("step"))]
    run.files.append(path.name)
    if not any("loss" in row or "eval_loss" in row for row in rows):
        return "its log_history holds no loss"
    step = max(float(row["step"]) for row in rows)
    if step < run.path_step:  # of several checkpoints' states the last holds the history of all
        return None
    tokens = all(is_number(row.get("num_input_tokens_seen")) for row in rows if "loss" in row or "eval_loss" in row)
    at = "num_input_tokens_seen" if tokens else "step"
    columns = {
        kind: [(float(row[at]), as_float(row[key]), as_float(row.get("grad_norm"))) for row in rows if key in row]
        for kind, key in (("train", "loss"), ("heldout", "eval_loss"))
    }
    train, heldout = (np.array(columns[kind], dtype=float).reshape(-1, 3) for kind in ("train", "heldout"))
    run.path = LossPath(train[:, 0], train[:, 1], train[:, 2], heldout[:, 0], heldout[:, 1])
    run.path_unit, run.path_step = "tokens" if tokens else "steps", step
    rates = [row["learning_rate"] for row in rows if is_number(row.get("learning_rate"))]
    if rates:
        run.settings.setdefault("learning_rate", max(rates))
    for key, name in (("num_train_epochs", "epochs"), ("train_batch_size", "batch"), ("max_steps", "steps")):
        if is_number(content.get(key)):
            run.settings.setdefault(name, content[key])
    return None
