"""Names in other tools' files: which are settings, which are costs, and which are scores."""

import math
import re
from collections.abc import Mapping
from typing import Any

from loragrid.external.directions import HELD_OUT_WORDS, HIGHER_IS_BETTER, TRAINING_WORDS, name_words
from loragrid.external.runs import is_number
from loragrid.study.completion import setting_names

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
    "base_model_name_or_path": "model",
    "model_name_or_path": "model",
    "model_id": "model",
    "dataset_name": "data",
    "datasets": "data",
    "lora_dim": "rank",
    "learning-rate": "learning_rate",
    "micro_batch_size": "batch",
    "num_epochs": "epochs",
    "n_epochs": "epochs",
    "num_steps": "steps",
    "train_steps": "steps",
    "global_step": "steps",
    "_step": "steps",
    "step": "steps",
    "train/global_step": "steps",
    "sequence_len": "max_length_tokens",
    "lr_scheduler": "schedule",
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
    *("param", "params", "parameters", "trainable", "norm", "len", "elapsed", "remaining", "percentage"),
    *("progress", "cuda", "allocated", "reserved", "bytes", "latency", "created"),
}
# Trainer's and TRL's names for their means over training batches.
TRAINING_NAMES = {"loss", "mean_token_accuracy"}


# A data frame's row numbers, under the names that pandas writes and reads them.
ROW_NUMBERS = re.compile(r"|index|level_\d+|unnamed: \d+(\.\d+)?")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
# Values of a setting called "adapter" that name a method and no folder.
METHODS = ("lora", "qlora", "dora", "full")


def setting_of(name: str, value: Any) -> tuple[str, Any] | None:
    """Our name and value of a setting; None if the name is none that is known."""
    if name in ("adapter", "peft") and str(value).lower() in METHODS:
        return "method", value
    if name not in SETTINGS and name not in setting_names():
        return None
    return SETTINGS.get(name, name), as_number(value)


def as_number(value: Any) -> Any:
    """A text that is a number as the number; a percentage as a share; all else as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.endswith("%") and NUMBER.fullmatch(text[:-1].strip()):
        return float(text[:-1]) / 100
    return float(text) if NUMBER.fullmatch(text) else value


def is_not_finite(value: Any) -> bool:
    """Whether a value is a NaN or an infinity, also as text such as “-Infinity”."""
    if isinstance(value, str):
        return value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity")
    return isinstance(value, float) and not math.isfinite(value)


def reason_against(name: str, value: Any) -> str | None:
    """Why a column is no score; None if it is one."""
    words = name_words(name)
    if ROW_NUMBERS.fullmatch(name):
        return "a row number of pandas, not a score"
    if words & TRAINING_WORDS or name in TRAINING_NAMES:
        return "measured on training batches: not comparable between runs of other length or data"
    # time_travel_acc is a score although its name has a time.
    if words & COSTS and not words & HIGHER_IS_BETTER:
        return "a cost or a size, not a score"
    if is_not_finite(value):
        return "NaN or infinite in a run: no score there"
    if not is_number(value):
        return "neither a number nor a known setting"
    return None


def is_held_out_score(name: str) -> bool:
    """Whether a value in a log was measured on held-out rows and is no cost: eval_wer, valid accuracy."""
    words = name_words(name)
    if words & TRAINING_WORDS or (words & COSTS and not words & HIGHER_IS_BETTER):
        return False
    return bool(words & HELD_OUT_WORDS)


def first_of(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of the named values that is a number, or None."""
    return next((row[name] for name in names if is_number(row.get(name))), None)
