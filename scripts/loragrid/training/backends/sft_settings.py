"""The settings of TRL's SFTTrainer, for every backend that trains through it."""

from pathlib import Path
from typing import Any

from loragrid.training.backends.recipe import Recipe

# The same for every run; written out so that a library's new default changes nothing.
FIXED_SETTINGS: dict[str, Any] = {
    # The backend trl trains with another one on a GPU, where the model supports it (chunked_loss.py).
    "loss_type": "nll",
    # The rows are labelled and cut already.
    "max_length": None,
    "completion_only_loss": False,
    "assistant_only_loss": False,
    "shuffle_dataset": False,
    "train_sampling_strategy": "random",
    "packing_strategy": "bfd",
    "eval_packing": False,
    # Worker processes would have random states of their own, which a checkpoint does not hold.
    "dataloader_num_workers": 0,
    "dataloader_drop_last": False,
    "average_tokens_across_devices": False,
    # Every update is logged, as it is: by default transformers logs a NaN loss as 0.
    "logging_strategy": "steps",
    "logging_steps": 1,
    "logging_nan_inf_filter": False,
    # `Progress` decides when to evaluate and save.
    "eval_strategy": "no",
    "save_strategy": "no",
    "disable_tqdm": True,
    "push_to_hub": False,
}


def sft_settings(recipe: Recipe, *, folder: Path) -> dict[str, Any]:
    """Every setting of TRL that could change the result."""
    cuda = recipe.device == "cuda"
    return FIXED_SETTINGS | {
        "output_dir": str(folder),
        # `attach_progress` sets the true numbers, which depend on the length of the run.
        "max_steps": 1,
        "warmup_steps": 0,
        "per_device_train_batch_size": recipe.per_device,
        "gradient_accumulation_steps": recipe.accumulation,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "optim": recipe.optimizer,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "use_cpu": not cuda,
        "fp16": recipe.compute_dtype == "fp16",
        "bf16": recipe.compute_dtype == "bf16",
        # Off, so that fp32 is the same arithmetic on every GPU; CPUs do not have it.
        "tf32": False if cuda else None,
        # Recomputing activations costs a third of the time and makes a 3B model fit a T4.
        "gradient_checkpointing": recipe.checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if recipe.checkpointing else None,
        # TRL must not tokenise the rows again.
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "packing": recipe.packing,
        # Explicit, because unsloth chooses for itself otherwise.
        "padding_free": recipe.packing,
        "dataloader_pin_memory": cuda,
        "report_to": recipe.report_to,
    }
