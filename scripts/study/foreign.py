"""Finished runs from elsewhere: a table of settings and scores, trainer_state.json files, lm-eval result files.

Each file is recognised by what it holds. A folder's sub-folders are runs named after them; files that lie in the folder
itself belong to runs named after the file, and a table's rows to the runs they name.
"""

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from study.errors import UserError, one_line
from study.run_evidence import LossPath
from study.wording import visible

MOST_FILES = 5000
LARGEST_BYTES = 256 * 2**20
NAME_COLUMNS = ("run", "name", "run_name", "id", "experiment")
# column in other people's tables → our name for the setting
SETTINGS = {
    "model": "model",
    "base_model": "model",
    "model_name": "model",
    "learning_rate": "learning_rate",
    "lr": "learning_rate",
    "rank": "rank",
    "r": "rank",
    "lora_r": "rank",
    "lora_rank": "rank",
    "alpha": "alpha",
    "lora_alpha": "alpha",
    "batch_size": "batch",
    "per_device_train_batch_size": "batch",
    "batch": "batch",
    "gradient_accumulation_steps": "accumulation",
    "grad_acc": "accumulation",
    "accumulation": "accumulation",
    "epochs": "epochs",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "steps": "steps",
    "seed": "seed",
}
# columns that are neither settings nor scores
COSTS = (
    "runtime",
    "seconds",
    "time",
    "minutes",
    "hours",
    "memory",
    "vram",
    "_per_second",
    "epoch",
    "step",
    "samples",
    "tokens",
    "param",
)
LOWER_IS_BETTER = ("loss", "perplexity", "ppl", "bits_per_byte", "wer", "error", "brier")


@dataclass(frozen=True)
class ForeignScore:
    """One score: `stderr` and `items` are None where the file does not tell."""

    value: float
    stderr: float | None
    items: int | None


@dataclass
class ForeignRun:
    """What is known of one run. `path` has its losses over tokens, or over steps where tokens were not logged."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    scores: dict[tuple[str, str], ForeignScore] = field(default_factory=dict)
    path: LossPath | None = None
    path_unit: str = "steps"
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ForeignResults:
    """All runs by name, and the files that could not be used with the reason."""

    runs: dict[str, ForeignRun]
    unused: list[tuple[str, str]]


def read_foreign(source: Path) -> ForeignResults:
    """Read a folder or a single file; nothing usable in it is a `UserError`."""
    if not source.exists():
        raise UserError(f"{source} does not exist: give a table, a results file or a folder of them")
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    files = [path for path in files if path.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl")]
    if len(files) > MOST_FILES:
        raise UserError(f"{source} holds {len(files)} files: give a folder of at most {MOST_FILES}")
    results = ForeignResults({}, [])
    for path in files:
        name = path.stem if path == source else str(path.relative_to(source))
        reason = _read_file(path, _run_name(path, source), results.runs)
        if reason:
            results.unused.append((visible(name, 200), reason))
    if not results.runs:
        why = f" ({results.unused[0][1]})" if results.unused else ""
        raise UserError(f"{source} holds no run{why}: see README, 'Runs from elsewhere', for the files that are read")
    return results


def _run_name(path: Path, source: Path) -> str:
    """The first folder below the source names the run; for a file that lies there itself, its own name does."""
    if path == source or path.parent == source:
        return source.name if path.name == "trainer_state.json" else path.stem
    return path.relative_to(source).parts[0]


def _read_file(path: Path, name: str, runs: dict[str, ForeignRun]) -> str | None:
    """Add what a file holds to `runs`; a reason if it holds nothing we know."""
    if path.stat().st_size > LARGEST_BYTES:
        return f"larger than {LARGEST_BYTES // 2**20} MiB"
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            return _read_table(path, runs)
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            return _add_rows(rows, path, runs)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, csv.Error) as error:
        return one_line(f"cannot be read: {error}")[:200]
    if isinstance(content, list):
        return _add_rows(content, path, runs)
    if isinstance(content, dict) and isinstance(content.get("log_history"), list):
        return _add_trainer_state(content, runs.setdefault(name, ForeignRun(name)), path)
    if isinstance(content, dict) and isinstance(content.get("results"), dict):
        return _add_lm_eval(content, runs.setdefault(name, ForeignRun(name)), path)
    return "neither a table of runs, nor a trainer_state.json, nor lm-eval results"


def _read_table(path: Path, runs: dict[str, ForeignRun]) -> str | None:
    import pandas as pd

    separator = "\t" if path.suffix.lower() == ".tsv" else None
    table = pd.read_csv(path, sep=separator, engine="python", encoding_errors="replace")
    return _add_rows(table.astype(object).where(table.notna(), None).to_dict("records"), path, runs)


def _add_rows(rows: list[Any], path: Path, runs: dict[str, ForeignRun]) -> str | None:
    rows = [row for row in rows if isinstance(row, dict)]
    if not rows:
        return "holds no rows of named columns"
    used = 0
    for number, row in enumerate(rows, start=1):
        named = {str(key).strip().lower(): value for key, value in row.items()}
        name = next((str(named[key]) for key in NAME_COLUMNS if named.get(key) not in (None, "")), f"row {number}")
        run = ForeignRun(name)
        for key, value in named.items():
            _add_cell(run, key, value, named)
        if run.scores or run.settings:
            known = runs.setdefault(name, ForeignRun(name))
            known.settings |= run.settings
            known.scores |= run.scores
            known.files.append(path.name)
            used += 1
    return None if used else "its columns hold neither settings nor scores"


def _add_cell(run: ForeignRun, key: str, value: Any, row: dict[str, Any]) -> None:
    if value is None or key in NAME_COLUMNS:
        return
    if key in SETTINGS:
        run.settings[SETTINGS[key]] = value
    elif _is_number(value) and not key.endswith(("stderr", "_se")) and not any(word in key for word in COSTS):
        stderr = next((row[k] for k in (f"{key}_stderr", f"{key} stderr", f"{key}_se") if _is_number(row.get(k))), None)
        run.scores[(key, "")] = ForeignScore(float(value), None if stderr is None else float(stderr), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _add_trainer_state(content: dict[str, Any], run: ForeignRun, path: Path) -> str | None:
    """Loss path of a transformers Trainer: `loss` and `eval_loss` rows by step, tokens where they were counted."""
    rows = [row for row in content["log_history"] if isinstance(row, dict) and _is_number(row.get("step"))]
    if not any("loss" in row or "eval_loss" in row for row in rows):
        run.files.append(path.name)
        return "its log_history holds no loss"
    tokens = all(_is_number(row.get("num_input_tokens_seen")) for row in rows if "loss" in row or "eval_loss" in row)
    at = "num_input_tokens_seen" if tokens else "step"
    columns = {
        kind: [(float(row[at]), _as_float(row[key]), _as_float(row.get("grad_norm"))) for row in rows if key in row]
        for kind, key in (("train", "loss"), ("heldout", "eval_loss"))
    }
    train, heldout = (np.array(columns[kind], dtype=float).reshape(-1, 3) for kind in ("train", "heldout"))
    longer = run.path is None or len(train) >= len(run.path.train)
    if longer:  # of several checkpoints' states the last holds the history of all
        run.path = LossPath(train[:, 0], train[:, 1], train[:, 2], heldout[:, 0], heldout[:, 1])
        run.path_unit = "tokens" if tokens else "steps"
        rates = [row["learning_rate"] for row in rows if _is_number(row.get("learning_rate"))]
        run.settings |= {"learning_rate": max(rates)} if rates and "learning_rate" not in run.settings else {}
        for key, name in (("num_train_epochs", "epochs"), ("train_batch_size", "batch"), ("max_steps", "steps")):
            if _is_number(content.get(key)):
                run.settings.setdefault(name, content[key])
    run.files.append(path.name)
    return None


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _add_lm_eval(content: dict[str, Any], run: ForeignRun, path: Path) -> str | None:
    """lm-eval results in today's form (`"acc,none"`, `"acc_stderr,none"`) and the older one (`"acc"`, `"acc_stderr"`)."""
    counts = content.get("n-samples") or {}
    for task, metrics in content["results"].items():
        for key, value in metrics.items() if isinstance(metrics, dict) else ():
            metric, _, variant = str(key).partition(",")
            if metric.endswith("_stderr") or not _is_number(value) or metric in ("alias", "sample_len"):
                continue
            stderr = metrics.get(f"{metric}_stderr,{variant}" if variant else f"{metric}_stderr")
            items = counts.get(task, {}).get("effective") if isinstance(counts.get(task), dict) else None
            label = metric if variant in ("", "none") else f"{metric} {variant}"
            run.scores[(str(task), label)] = ForeignScore(
                float(value), float(stderr) if _is_number(stderr) else None, int(items) if _is_number(items) else None
            )
    arguments = (content.get("config") or {}).get("model_args")
    run.settings |= _model_arguments(arguments)
    run.files.append(path.name)
    return None if run.scores else "its results hold no numbers"


def _model_arguments(arguments: Any) -> dict[str, Any]:
    """Model and adapter from lm-eval's `model_args`, text or map."""
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    if not isinstance(arguments, dict):
        return {}
    return {name: arguments[key] for key, name in (("pretrained", "model"), ("peft", "adapter")) if arguments.get(key)}


def lower_is_better(metric: str) -> bool:
    """Whether a metric's name says that less is better."""
    return any(word in metric.lower() for word in LOWER_IS_BETTER)
