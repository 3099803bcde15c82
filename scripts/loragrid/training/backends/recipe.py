"""The recipe of one training run: every setting except its data and its length."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from loragrid.errors import UserError
from loragrid.runtime.optional_packages import check_liger, check_packages
from loragrid.runtime.visible_gpus import check_one_gpu
from loragrid.study.batch_shares import divided_batch
from loragrid.study.settings import Batch, Warmup
from loragrid.training.backends.liger_kernels import check_family

if TYPE_CHECKING:
    from loragrid.study.grid import Cell
    from loragrid.study.study_file import Study


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of one training run on one device, with `auto` resolved; None for what its method lacks.

    `per_device` rows a pass and `accumulation` passes an update, which `batch` has as the study file writes them
    (training/step_layout.py); `checkpointing`: activations are computed again in the backward pass. `compute_dtype`
    is "fp32", "bf16" or "fp16", `device` "cpu" or "cuda". `split`: the base is split over several GPUs. `liger`: steps
    are computed by liger's kernels.
    """

    method: str
    learning_rate: float
    rank: int | None
    alpha: float | None
    dropout: float | None
    target_modules: str | Sequence[str] | None
    learning_rate_ratio: float | None
    batch: Batch
    per_device: int
    accumulation: int
    checkpointing: bool
    seed: int
    schedule: str
    warmup: Warmup
    weight_decay: float
    optimizer: str
    max_grad_norm: float
    packing: bool
    max_length_tokens: int
    compute_dtype: str
    threads: int
    device: str
    report_to: str
    split: bool
    liger: bool


# Settings that make no difference to a recipe, and the code that reads them.
ELSEWHERE = {
    "model": "Study.base_entry",
    "precision": "Study.base_entry",
    "data": "the data set that the run is given",
    "loss_on": "the data set that the run is given",
    "backend": "loragrid.training.backends.factory",
    "budget": "loragrid.study.budget",
    "evaluations": "loragrid.training.progress",
}


def make_recipe(study: "Study", cell: "Cell", *, device: str) -> Recipe:
    """The recipe of a cell on a device; raises `UserError` for what this machine lacks."""
    settings, report_to, liger = cell.settings, study.training.report_to, study.training.liger_kernels
    if liger:
        check_liger(file=study.path.name, device=device)
    if device == "cuda":
        check_one_gpu()
    # Before the base is loaded: a missing package should cost no minutes.
    check_packages(
        file=study.path.name,
        backend=settings.backend,
        optimizer=settings.optimizer,
        report_to=report_to,
        precision=settings.precision,
    )
    if liger:
        check_family(study.models[cell.model])
    derived = {
        "compute_dtype": resolve_dtype(settings.compute_dtype, device=device),
        "device": device,
        # As `step_layout` decides otherwise: a GPU may have no room for activations.
        "checkpointing": device == "cuda",
        "report_to": report_to,
        "split": False,
        "liger": liger,
    }
    taken = [field.name for field in fields(Recipe) if field.name not in derived]
    return Recipe(**{name: getattr(settings, name) for name in taken}, **derived)


def recipe_of_rank(recipe: Recipe, *, rank: int, count: int, split: bool) -> Recipe:
    """The recipe with batches of which each rank has equally many, as the study file's check has made sure."""
    if count == 1:
        return recipe
    rows, batches = divided_batch((recipe.per_device, recipe.accumulation), count)
    report_to = recipe.report_to if rank == 0 else "none"
    return replace(recipe, per_device=rows, accumulation=batches, report_to=report_to, split=split)


def resolve_dtype(name: str, *, device: str) -> str:
    """ "fp32", "bf16" or "fp16" for a setting `compute_dtype`; raises `UserError` if unsupported.

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
        line = "compute_dtype: a CPU cannot train in fp16"
        raise UserError(f"{line}. Fix: set it to fp32, bf16 or auto.")
    if name == "bf16" and not has_bf16:
        line = "compute_dtype: this GPU has no bf16"
        raise UserError(f"{line}. Fix: set it to fp16 or auto.")
    return name
