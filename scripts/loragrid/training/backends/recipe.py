"""The recipe of one training run: every setting except its data and its length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loragrid.errors import UserError
from loragrid.runtime.optional_packages import check_packages

if TYPE_CHECKING:
    from loragrid.study.grid import Cell
    from loragrid.study.study_file import Study


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of one training run on one device, with `auto` resolved.

    `per_device` rows a batch and `accumulation` batches an update; `compute_dtype` is "fp32",
    "bf16" or "fp16", `device` "cpu" or "cuda".
    """

    learning_rate: float
    rank: int
    alpha: float
    dropout: float
    target_modules: str | Sequence[str]
    per_device: int
    accumulation: int
    seed: int
    warmup_steps: int
    weight_decay: float
    schedule: str
    optimizer: str
    max_grad_norm: float
    packing: bool
    max_length_tokens: int
    compute_dtype: str
    device: str
    threads: int
    report_to: str


def make_recipe(study: "Study", cell: "Cell", *, device: str) -> Recipe:
    """The recipe of a cell on a device; raises `UserError` for what this machine lacks."""
    training = study.training
    # Before the base is loaded: a missing package should cost no minutes.
    check_packages(
        backend=training.backend,
        optimizer=training.optimizer,
        report_to=training.report_to,
        precision=study.models[cell.model].precision,
    )
    return Recipe(
        learning_rate=cell.learning_rate,
        rank=cell.rank,
        alpha=cell.rank if training.alpha == "rank" else training.alpha,
        dropout=training.dropout,
        target_modules=training.target_modules,
        per_device=cell.batch[0],
        accumulation=cell.batch[1],
        seed=cell.seed,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        schedule=training.schedule,
        optimizer=training.optimizer,
        max_grad_norm=training.max_grad_norm,
        packing=training.packing,
        max_length_tokens=study.data.max_length_tokens,
        compute_dtype=resolve_dtype(training.compute_dtype, device=device),
        device=device,
        threads=training.threads,
        report_to=training.report_to,
    )


def resolve_dtype(name: str, *, device: str) -> str:
    """ "fp32", "bf16" or "fp16" for a `training.compute_dtype`; raises `UserError` if unsupported.

    `auto` is fp32 on a CPU, bf16 on a GPU that has it, fp16 on other GPUs.
    """
    import torch

    # Emulated bf16, as on a T4, is slow and does not count.
    has_bf16 = device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        if device == "cpu":
            return "fp32"
        return "bf16" if has_bf16 else "fp16"
    if name == "fp16" and device == "cpu":
        line = "training.compute_dtype: a CPU cannot train in fp16"
        raise UserError(f"{line}. Fix: set it to fp32, bf16 or auto.")
    if name == "bf16" and not has_bf16:
        line = "training.compute_dtype: this GPU has no bf16"
        raise UserError(f"{line}. Fix: set it to fp16 or auto.")
    return name
