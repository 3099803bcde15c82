"""Tables of finished runs that others made: a row per run, its settings and scores in columns of many names."""

from pathlib import Path
from typing import Any

from loragrid.external.runs import HIGHER_IS_BETTER, ExternalResults, ExternalRun, ExternalScore, is_number, name_words
from loragrid.formatting import visible

NAME_COLUMNS = ("run", "name", "run_name", "id", "experiment")
# column in other people's tables → our name for the setting
SETTINGS = {
    "model": "model",
    "base_model": "model",
    "model_name": "model",
    "adapter": "adapter",
    "peft": "adapter",
    "dataset": "dataset",
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
    "train_batch_size": "batch",
    "batch": "batch",
    "gradient_accumulation_steps": "accumulation",
    "grad_acc": "accumulation",
    "accumulation": "accumulation",
    "epochs": "epochs",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "steps": "steps",
    "seed": "seed",
    "dropout": "dropout",
    "lora_dropout": "dropout",
    "target_modules": "target_modules",
    "lr_scheduler_type": "schedule",
    "scheduler": "schedule",
    "warmup_steps": "warmup_steps",
    "warmup_ratio": "warmup_ratio",
    "warmup": "warmup_steps",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "optim": "optimizer",
    "optimizer": "optimizer",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "max_length": "max_length",
    "cutoff_len": "max_length",
    "packing": "packing",
    "load_in_4bit": "load_in_4bit",
    "load_in_8bit": "load_in_8bit",
    "bits": "bits",
    "precision": "precision",
    "dtype": "dtype",
    "fp16": "fp16",
    "bf16": "bf16",
    "temperature": "temperature",
    "top_p": "top_p",
    "max_new_tokens": "max_new_tokens",
    "num_fewshot": "num_fewshot",
}
# words of columns that are neither settings nor scores
COSTS = {
    *("runtime", "second", "seconds", "sec", "secs", "time", "timestamp", "minutes", "mins", "hours", "gpu", "cost"),
    *("memory", "mem", "vram", "ram", "mib", "gib", "mb", "gb", "energy", "flos", "flops", "tflops", "throughput"),
    *("epoch", "epochs", "step", "steps", "samples", "examples", "rows", "tokens", "length", "size"),
    *("param", "params", "parameters", "trainable", "norm"),
}
TRAINING = {"train", "training"}
TRAINING_NAMES = {"loss", "mean_token_accuracy"}  # what Trainer and TRL call their own means over training batches


def read_table(path: Path, results: ExternalResults) -> str | None:
    """Add the rows of a CSV or TSV file."""
    import pandas as pd

    separator = "\t" if path.suffix.lower() == ".tsv" else None
    table = pd.read_csv(path, sep=separator, engine="python", encoding_errors="replace")
    return add_rows(table.astype(object).where(table.notna(), None).to_dict("records"), path, results)


def add_rows(rows: list[Any], path: Path, results: ExternalResults) -> str | None:
    """Add rows, one per run; a reason if they hold nothing we know. A second row of a name is a run of its own."""
    rows = [row for row in rows if isinstance(row, dict)]
    if not rows:
        return "holds no rows of named columns"
    if any("doc_id" in row for row in rows):
        return "items of a run, in a form that is not read"
    used: set[str] = set()
    for number, row in enumerate(rows, start=1):
        named = {str(key).strip().lower(): value for key, value in row.items()}
        given = next((str(named[key]) for key in NAME_COLUMNS if named.get(key) not in (None, "")), "")
        name = given or f"{path.stem} row {number}"
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
    return None if used else "its columns hold neither settings nor scores"


def _add_cell(run: ExternalRun, key: str, value: Any, row: dict[str, Any]) -> str | None:
    """Add one cell; the reason if its column is not used."""
    if value is None or value == "" or key in NAME_COLUMNS:
        return None
    if key in SETTINGS:
        run.settings[SETTINGS[key]] = value
        return None
    if key.endswith(("stderr", "_se")):
        return None
    words = name_words(key)
    if words & TRAINING or key in TRAINING_NAMES:
        return "measured in training: not comparable between runs of other length or data"
    if words & COSTS and not words & HIGHER_IS_BETTER:
        return "a cost or a size, not a score"
    if not is_number(value):
        return "no number, and no setting that is known"
    stderr = next((row[k] for k in (f"{key}_stderr", f"{key} stderr", f"{key}_se") if is_number(row.get(k))), None)
    run.scores[(key, "")] = ExternalScore(float(value), None if stderr is None else float(stderr), None)
    return None
