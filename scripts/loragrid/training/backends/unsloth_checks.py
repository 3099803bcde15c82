"""Checks that unsloth trains what the study asks for: precision, settings and rows.

unsloth changes settings by device and model, most of them with no more than a printed line.
"""

from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.training.trainer_hooks import TrainerHooks

# Settings that determine what is trained; unsloth or its CPU version changes some of them.
COMPARED_SETTINGS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "seed",
    "data_seed",
    "fp16",
    "bf16",
    "loss_type",
    "packing",
    "packing_strategy",
    "padding_free",
    "shuffle_dataset",
    "completion_only_loss",
    "assistant_only_loss",
    "train_sampling_strategy",
    "dataloader_drop_last",
    "average_tokens_across_devices",
)


def refuse_other_precision(model: Any, precision: str, dtype: Any, folder: Path) -> None:
    """Raise `UserError` if the base is not in the study's precision, computed in `dtype`."""
    four_bit = bool(getattr(model, "is_loaded_in_4bit", False))
    # The models that overflow float16; a note in the record says so.
    forced_float32 = getattr(model, "_unsloth_forced_float32", False)
    if four_bit == (precision == "4bit") and (model.dtype == dtype or forced_float32):
        return
    found = "4bit" if four_bit else str(model.dtype).removeprefix("torch.")
    raise UserError(
        f"model folder {folder}: its precision is {precision} in the study file, and unsloth "
        f"loaded it as {found}. Fix: set the precision to 32bit, or backend to trl."
    )


def refuse_other_settings(arguments: Any, wanted: dict[str, Any], *, unless: set[str]) -> None:
    """Raise `UserError` for the first setting, not in `unless`, that differs from `wanted`."""
    for name in COMPARED_SETTINGS:
        found = getattr(arguments, name)
        # Some are members of an enumeration.
        found = getattr(found, "value", found)
        if found != wanted[name] and name not in unless:
            raise UserError(
                f"backend: unsloth would train with {name} {found} where the study asks "
                f"for {wanted[name]}. Fix: set backend to trl, or the setting to {found}."
            )


def refuse_other_layers(model: Any, layers: list[str]) -> None:
    """Raise `UserError` unless exactly these layers, by their full names, have an adapter."""
    adapted = [name for name, module in model.get_base_model().named_modules() if hasattr(module, "lora_A")]
    different = sorted(set(adapted) ^ set(layers))
    if different:
        what = "also adapt" if different[0] in adapted else "not adapt"
        raise UserError(f"target_modules: unsloth would {what} {different[0]}. Fix: set backend to trl.")


def refuse_other_rows(trainer: TrainerHooks, given: Any, *, packing: bool) -> None:
    """Raise `RuntimeError` unless the trainer has the prepared rows and TRL's collator."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collator = trainer.data_collator
    # Another collator might join samples of a row.
    known = isinstance(collator, DataCollatorForLanguageModeling)
    if not known or collator.padding_free != trainer.args.padding_free or (packing and not collator.padding_free):
        raise RuntimeError(f"unsloth replaced TRL's collator with {type(collator).__name__}")
    if packing:
        return
    columns = ["input_ids", "labels"]
    held = trainer.train_dataset.with_format("arrow")[:].select(columns)
    if not held.equals(given.with_format("arrow")[:].select(columns)):
        raise RuntimeError("unsloth changed the training rows")
