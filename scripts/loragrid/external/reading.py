"""Reads external runs: tables, logs, nested settings and metrics, lm-eval's results and items.

In a folder of runs each subfolder is a run and names it; a file directly in the folder belongs to a
run named after the file; rows of a table, and files that name their run, belong to the run they name.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, one_line
from loragrid.external import step_logs
from loragrid.external.directions import known_direction
from loragrid.external.formats import nested_files
from loragrid.external.formats.event_files import INSTALL, MISSING, event_rows, is_event_file, run_of_events
from loragrid.external.formats.lm_eval_files import (
    DATE,
    add_item_means,
    add_results,
    add_samples,
    is_lm_eval,
    is_sample,
)
from loragrid.external.runs import ExternalResults, ExternalRun, is_number
from loragrid.external.step_logs import COLUMN, ROWS, STATE
from loragrid.external.tables import add_cells, add_rows, merge, name_of, read_table
from loragrid.formatting import visible

READ_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml")
MOST_FILES = 5000
LARGEST_BYTES = 256 * 2**20
# The folders that a Trainer saves to are parts of a run.
CHECKPOINT = re.compile(r"checkpoint-\d+")
# Files that every run has under the same name: their folder names the run.
OF_FOLDER = ("trainer_state.json", "trainer_log.jsonl", "metrics.jsonl", "all_results.json", "wandb-summary.json")
# Setting of a Trainer's state → our name for it.
STATE_SETTINGS = {"num_train_epochs": "epochs", "train_batch_size": "batch", "max_steps": "steps"}
NOTHING_KNOWN = "neither a table of runs, nor a log of steps, nor settings with scores, nor lm-eval results"
NOT_HELD_OUT = "logged without a word that its rows were held out"
ONLY_SETTINGS = "settings of a run without losses or scores"


def read_external(source: Path) -> ExternalResults:
    """Read a file or a folder. Raises `UserError` if it holds no run."""
    results = ExternalResults({}, [], {})
    # Settings alone are no run: they are added to the runs that the other files hold.
    settings: list[tuple[str, Path, ExternalRun]] = []
    for path in _files(source):
        reason = _read_file(path, _run_name(path, source), results, settings)
        if reason:
            results.unused.append((_shown(path, source), reason))
    for name, path, run in settings:
        known = results.runs.get(name)
        if known is None:
            results.unused.append((_shown(path, source), ONLY_SETTINGS))
            continue
        known.settings = run.settings | known.settings
        known.other_settings |= run.other_settings
        known.files.append(path.name)
    results.add_varied_settings()
    for run in results.runs.values():
        step_logs.finish_log(run)
        for name in step_logs.unused_scores(run):
            results.columns.setdefault(visible(name, 80), NOT_HELD_OUT)
        add_item_means(run)
    # A log may turn out to hold neither losses nor scores.
    for name in [name for name, run in results.runs.items() if not (run.scores or run.settings or run.path)]:
        del results.runs[name]
    if not results.runs:
        why = f" ({results.unused[0][1]})" if results.unused else ""
        fix = INSTALL if MISSING in why else "name files listed in docs/results-from-elsewhere.md"
        raise UserError(f"{source}: no run found{why}. Fix: {fix}")
    return results


def _shown(path: Path, source: Path) -> str:
    return visible(path.stem if path == source else str(path.relative_to(source)), 200)


def _files(source: Path) -> list[Path]:
    """The files that may hold runs, in the order in which later ones replace earlier ones."""
    if not source.exists():
        raise UserError(f"{source}: no such file or folder. Fix: name a table or a folder of results")
    if source.is_file():
        files = [source]
    else:
        files = sorted((path for path in source.rglob("*") if path.is_file()), key=_by_number)
    files = [path for path in files if path.suffix.lower() in READ_SUFFIXES or is_event_file(path)]
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
    if is_event_file(path):
        return run_of_events(path, source, folders)
    if folders:
        return folders[0]
    in_checkpoint = path != source and path.parent != source
    # A Trainer calls every run's state the same, so its folder names the run.
    if in_checkpoint or (path != source and path.name in OF_FOLDER):
        return source.name
    # lm-eval writes the items beside the results of the same moment: both belong to one run.
    return re.sub(rf"^samples_.+_({DATE})$", r"results_\1", path.stem)


def _read_file(
    path: Path, name: str, results: ExternalResults, settings: list[tuple[str, Path, ExternalRun]]
) -> str | None:
    """Add the content of a file to `results` or `settings`; the reason if it holds nothing usable."""
    if path.stat().st_size > LARGEST_BYTES:
        return f"larger than {LARGEST_BYTES // 2**20} MiB"
    try:
        if is_event_file(path):
            rows = event_rows(path, results)
            return _add_log(name, rows, path, results, COLUMN) if rows else "no scalars in it"
        content = _content(path)
        if content is None:
            return add_samples(path, results.runs.setdefault(name, ExternalRun(name)))
    # RecursionError: JSON may nest deeper than Python's parser can follow.
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, csv.Error) as error:
        return one_line(f"cannot be read: {error}")[:200]
    if isinstance(content, list):
        return _add_rows(content, path, name, results)
    if not isinstance(content, dict):
        return NOTHING_KNOWN
    if isinstance(content.get("log_history"), list):
        return _add_trainer_state(content, results.runs.setdefault(name, ExternalRun(name)), path)
    if isinstance(content.get("results"), dict) and is_lm_eval(content):
        run = results.runs.setdefault(name, ExternalRun(name))
        run.settings |= _own_config(content.get("config"))
        return add_results(content, run, path)
    rows = nested_files.runs_of(content)
    if rows is not None:
        return _add_rows(rows, path, name, results)
    return _add_nested(content, path, name, results, settings)


def _content(path: Path) -> Any:
    """The content of a file; None if it holds lm-eval's items, which are read line by line."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return read_table(path)
    if suffix in (".yaml", ".yml"):
        import yaml

        try:
            return yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
    if suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if is_sample(_first_row(path)):
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _first_row(path: Path) -> Any:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                return json.loads(line)
    return None


def _own_config(config: Any) -> dict[str, Any]:
    """The settings of a run from a configuration that is not lm-eval's own."""
    if not isinstance(config, dict) or "model_args" in config or "bootstrap_iters" in config:
        return {}
    run = ExternalRun("")
    add_cells(run, nested_files.flat_row(config).row, ExternalResults({}, [], {}))
    return run.settings


def _add_rows(rows: list[Any], path: Path, name: str, results: ExternalResults) -> str | None:
    """A log of steps, of one run or of several, or else a table of runs."""
    if step_logs.is_tensorboard(rows):
        run, found = step_logs.tensorboard_rows(rows, path.stem)
        return _add_log(run or name, found, path, results, COLUMN)
    charts = step_logs.chart_rows([row for row in rows if isinstance(row, dict)])
    for run, found in charts.items():
        _add_log(run, found, path, results, COLUMN)
    if charts:
        return None
    dicts = [row for row in rows if isinstance(row, dict)]
    flat = [nested_files.flat_row(row).row if any(isinstance(v, dict) for v in row.values()) else row for row in dicts]
    named: dict[str, list[Any]] = {}
    for row in flat:
        named.setdefault(name_of({str(key).strip().lower(): value for key, value in row.items()}), []).append(row)
    if not any("doc_id" in row for row in flat) and any(step_logs.is_step_log(own) for own in named.values()):
        for run, own in named.items():
            _add_log(run or name, own, path, results, ROWS)
        return None
    return add_rows(flat if flat else rows, path, results)


def _add_log(name: str, rows: list[Any], path: Path, results: ExternalResults, kind: int) -> str | None:
    run = results.runs.setdefault(name, ExternalRun(name))
    step_logs.add_log(run, rows, kind)
    run.files.append(path.name)
    return None if rows else "no numbers in its rows"


def _add_trainer_state(content: dict[str, Any], run: ExternalRun, path: Path) -> str | None:
    """Add the log and settings of a Trainer's state; the reason if it holds no loss."""
    rows = [row for row in content["log_history"] if isinstance(row, dict)]
    run.files.append(path.name)
    if not any(is_number(row.get("step")) and ("loss" in row or step_logs.held_out_losses(row)) for row in rows):
        return "no loss in its log_history"
    step_logs.add_log(run, rows, STATE)
    for key, name in STATE_SETTINGS.items():
        if is_number(content.get(key)):
            run.settings[name] = content[key]
    return None


def _add_nested(
    content: dict[str, Any],
    path: Path,
    name: str,
    results: ExternalResults,
    settings: list[tuple[str, Path, ExternalRun]],
) -> str | None:
    row, steps, other = nested_files.flat_row(content)
    run = ExternalRun(name_of(row) or name, other_settings=other)
    unused = ExternalResults({}, [], {})
    add_cells(run, row, unused)
    if steps or any(known_direction(key[0]) is not None for key in run.scores):
        merge(run, results, path)
        results.columns.update(unused.columns)
        if steps:
            step_logs.add_log(results.runs[run.name], steps, ROWS)
        return None
    if run.settings:
        settings.append((name, path, run))
        return None
    return NOTHING_KNOWN
