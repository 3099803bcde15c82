"""The recipe of one training run: every setting that is neither its data nor its length."""

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
    """Everything about one training run that is neither its data nor its length. `compute_dtype` is resolved, not auto."""

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
    """The recipe of a cell on this machine; what the machine lacks for it is a `UserError`."""
    training, data = study.training, study.data
    check_packages(
        backend=training.backend,
        optimizer=training.optimizer,
        report_to=training.report_to,
        precision=study.models[cell.model].precision,
    )
    taken = ("dropout", "target_modules", "warmup_steps", "weight_decay", "schedule", "optimizer", "max_grad_norm")
    return Recipe(
        learning_rate=cell.learning_rate,
        rank=cell.rank,
        alpha=cell.rank if training.alpha == "rank" else training.alpha,
        per_device=cell.batch[0],
        accumulation=cell.batch[1],
        seed=cell.seed,
        packing=training.packing,
        max_length_tokens=data.max_length_tokens,
        compute_dtype=resolve_dtype(training.compute_dtype, device=device),
        device=device,
        threads=training.threads,
        report_to=training.report_to,
        **{key: getattr(training, key) for key in taken},
    )


def resolve_dtype(name: str, *, device: str) -> str:
    """ "fp32", "bf16" or "fp16"; `auto` is bf16 where the card has it, fp16 on other CUDA cards, fp32 on a CPU."""
    import torch

    has_bf16 = device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return "fp32" if device == "cpu" else "bf16" if has_bf16 else "fp16"
    if name == "fp16" and device == "cpu":
        raise UserError("training.compute_dtype: a CPU does not train in fp16: set it to fp32, bf16 or auto")
    if name == "bf16" and not has_bf16:
        raise UserError("training.compute_dtype: this GPU has no bf16: set it to fp16 or auto")
    return name
