"""Tables of external runs: one run per row, settings and scores in columns of many names."""

from pathlib import Path
from typing import Any

from loragrid.external.directions import HIGHER_IS_BETTER, name_words
from loragrid.external.runs import ExternalResults, ExternalRun, ExternalScore, is_number
from loragrid.formatting import visible
from loragrid.study.completion import setting_names

NAME_COLUMNS = ("run", "name", "run_name", "id", "experiment")
# Column in other tools' tables → our name for the setting. A study's own settings are known besides.
SETTINGS = {
    "base_model": "model",
    "model_name": "model",
    "adapter": "adapter",
    "peft": "adapter",
    "dataset": "data",
    "train_dataset": "data",
    "peft_type": "method",
    "peft_method": "method",
    "finetuning_type": "method",
    "use_dora": "use_dora",
    "use_rslora": "use_rslora",
    "init_lora_weights": "init_lora_weights",
    "loraplus_lr_ratio": "learning_rate_ratio",
    "loraplus_ratio": "learning_rate_ratio",
    "lora_target": "target_modules",
    "lora_target_modules": "target_modules",
    "lr": "learning_rate",
    "r": "rank",
    "lora_r": "rank",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "batch_size": "batch",
    "per_device_train_batch_size": "batch",
    "train_batch_size": "batch",
    "gradient_accumulation_steps": "accumulation",
    "grad_acc": "accumulation",
    "accumulation": "accumulation",
    "epochs": "epochs",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "steps": "steps",
    "lora_dropout": "dropout",
    "lr_scheduler_type": "schedule",
    "scheduler": "schedule",
    "warmup_steps": "warmup_steps",
    "warmup_ratio": "warmup_ratio",
    "optim": "optimizer",
    "max_seq_length": "max_length_tokens",
    "max_seq_len": "max_length_tokens",
    "max_length": "max_length_tokens",
    "cutoff_len": "max_length_tokens",
    "load_in_4bit": "load_in_4bit",
    "load_in_8bit": "load_in_8bit",
    "bits": "bits",
    "dtype": "compute_dtype",
    "torch_dtype": "compute_dtype",
    "sample_packing": "packing",
    "fp16": "fp16",
    "bf16": "bf16",
    "temperature": "temperature",
    "top_p": "top_p",
    "max_new_tokens": "max_new_tokens",
    "num_fewshot": "num_fewshot",
    "n_shot": "num_fewshot",
    "shots": "num_fewshot",
    "chat_template": "chat_template",
    "apply_chat_template": "chat_template",
    "eval_dataset": "eval_data",
    "eval_data": "eval_data",
    "test_dataset": "eval_data",
    "split": "split",
    "eval_split": "split",
    "limit": "limit",
    "revision": "revision",
    "model_revision": "revision",
    "task_version": "task_version",
    "metric": "metric",
}
# Words in the names of columns that are neither settings nor scores.
COSTS = {
    *(
        "runtime",
        "second",
        "seconds",
        "sec",
        "secs",
        "time",
        "timestamp",
        "minutes",
        "mins",
        "hours",
        "gpu",
        "cost",
    ),
    *(
        "memory",
        "mem",
        "vram",
        "ram",
        "mib",
        "gib",
        "mb",
        "gb",
        "energy",
        "flos",
        "flops",
        "tflops",
        "throughput",
    ),
    *(
        "epoch",
        "epochs",
        "step",
        "steps",
        "samples",
        "examples",
        "rows",
        "tokens",
        "length",
        "size",
    ),
    *("param", "params", "parameters", "trainable", "norm"),
}
TRAINING = {"train", "training"}
# Trainer's and TRL's names for their means over training batches.
TRAINING_NAMES = {"loss", "mean_token_accuracy"}


def add_table(path: Path, results: ExternalResults) -> str | None:
    """Add the rows of a CSV or TSV file; the reason if they hold nothing usable."""
    import pandas as pd

    separator = "\t" if path.suffix.lower() == ".tsv" else None
    table = pd.read_csv(path, sep=separator, engine="python", encoding_errors="replace")
    # None for empty cells, which pandas would give as NaN.
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return add_rows(rows, path, results)


def add_rows(rows: list[Any], path: Path, results: ExternalResults) -> str | None:
    """Add rows, one per run; the reason if they hold nothing usable.

    A second row with the same name is another run.
    """
    rows = [row for row in rows if isinstance(row, dict)]
    if not rows:
        return "no rows with named columns"
    if any("doc_id" in row for row in rows):
        return "items of a run in an unknown format"
    used: set[str] = set()
    for number, row in enumerate(rows, start=1):
        named = {str(key).strip().lower(): value for key, value in row.items()}
        name = _name_of(named) or f"{path.stem} row {number}"
        if name in used:
            name = f"{name} (row {number})"
        run = ExternalRun(name)
        for key, value in named.items():
            reason = _add_cell(run, key, value, named)
            if reason:
                results.columns.setdefault(visible(key, 80), reason)
        if run.scores or run.settings:
            known = results.runs.setdefault(name, ExternalRun(name))
            known.settings |= run.settings
            known.scores |= run.scores
            known.files.append(path.name)
            used.add(name)
    return None if used else "neither settings nor scores in its columns"


def _name_of(row: dict[str, Any]) -> str:
    """The run's name by the first name column that is filled."""
    for column in NAME_COLUMNS:
        if row.get(column) not in (None, ""):
            return str(row[column])
    return ""


def _add_cell(run: ExternalRun, key: str, value: Any, row: dict[str, Any]) -> str | None:
    """Add one cell to the run; the reason if its column is not used."""
    if value is None or value == "" or key in NAME_COLUMNS:
        return None
    if key in SETTINGS or key in setting_names():
        run.settings[SETTINGS.get(key, key)] = value
        return None
    # Read together with its score.
    if key.endswith(("stderr", "_se")):
        return None
    words = name_words(key)
    if words & TRAINING or key in TRAINING_NAMES:
        return "measured on training batches: not comparable between runs of other length or data"
    # time_travel_acc is a score although its name has a time.
    if words & COSTS and not words & HIGHER_IS_BETTER:
        return "a cost or a size, not a score"
    if not is_number(value):
        return "neither a number nor a known setting"
    run.scores[(key, "")] = ExternalScore(float(value), _stderr_of(key, row), items=None)
    return None


def _stderr_of(key: str, row: dict[str, Any]) -> float | None:
    """The standard error of a score by the column beside it."""
    for column in (f"{key}_stderr", f"{key} stderr", f"{key}_se"):
        if is_number(row.get(column)):
            return float(row[column])
    return None
