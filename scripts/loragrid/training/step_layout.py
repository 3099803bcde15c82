"""How the rows of an update run: decided before the base is loaded, and kept when a run is resumed elsewhere."""

import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from loragrid.data.training_data import TrainingData
from loragrid.errors import UserError, print_line
from loragrid.models.find_shape import find_shape
from loragrid.planning.job_memory import gpu_layout, gpu_training_setup
from loragrid.study.batch_shares import StepLayout, cpu_layout, written_layout
from loragrid.study.budget import plan_steps
from loragrid.study.checks.run_length import check_batch, warmup_warning
from loragrid.study.grid import Cell
from loragrid.study.sections import ModelEntry
from loragrid.training.backends.recipe import Recipe
from loragrid.training.checkpoint_files import MANIFEST
from loragrid.training.fingerprint import CHECKPOINTING, ROWS_PER_PASS
from loragrid.training.run_record import FINISHED_COPY
from loragrid.training.run_session import RunContext


def with_chosen_layout(
    recipe: Recipe, *, context: RunContext, backend: str, entry: ModelEntry, data: TrainingData
) -> Recipe:
    """The recipe with the layout of the run's earlier session or, for a new run, with the one chosen for this device.

    The planning room chooses by the same rules. A batch that is folded although `training.fold_batches` is now off
    is not taken up: the checkpoint is refused by its fingerprint.
    """
    fold = context.study.training.fold_batches
    layout = _earlier_layout(context.out, recipe)
    if layout is None or (layout.per_device != recipe.per_device and not fold):
        layout = _chosen_layout(recipe, context=context, backend=backend, entry=entry, data=data)
    return with_layout(recipe, layout)


def with_layout(recipe: Recipe, layout: StepLayout) -> Recipe:
    """The recipe of a run whose updates have that layout."""
    return replace(recipe, **vars(layout))


def planned_steps(cell: Cell, recipe: Recipe, lengths_tokens: Sequence[int]) -> int:
    """The updates of a run on rows of these lengths, which the trainer may have packed.

    Raises `UserError` for an update of more rows than there are; prints a warning about a warm-up without an end.
    """
    settings = cell.settings
    steps = plan_steps(
        settings.budget,
        lengths_tokens=lengths_tokens,
        per_device=recipe.per_device,
        accumulation=recipe.accumulation,
    )
    check_batch(settings, len(lengths_tokens))
    warning = warmup_warning(settings, steps)
    if warning is not None:
        print_line(f"[{cell.run}] {warning}")
    return steps


def _chosen_layout(
    recipe: Recipe, *, context: RunContext, backend: str, entry: ModelEntry, data: TrainingData
) -> StepLayout:
    study, settings = context.study, context.cell.settings
    fold = study.training.fold_batches
    if recipe.device == "cpu":
        return cpu_layout(settings, row_tokens=_row_tokens(recipe, data), fold=fold and backend == "trl")
    shape = None
    with suppress(UserError):
        shape = find_shape(entry)
    if shape is None:
        return written_layout(settings, recipe.device)
    setup = gpu_training_setup(settings, bf16=True, liger=recipe.liger)
    setup = replace(setup, compute_dtype=recipe.compute_dtype, backend=backend)
    memory_mib = study.plan.vram_mib or _card_mib()
    return gpu_layout(shape, setup, accumulation=settings.accumulation, fold=fold, memory_mib=memory_mib)


def _row_tokens(recipe: Recipe, data: TrainingData) -> float:
    """Mean tokens of a training row; packing fills rows almost completely."""
    if recipe.packing or not len(data.train):
        return recipe.max_length_tokens
    return statistics.fmean(len(ids) for ids in data.train["input_ids"])


def _card_mib() -> int:
    import torch

    return torch.cuda.get_device_properties(0).total_memory // 2**20


def _earlier_layout(out: Path, recipe: Recipe) -> StepLayout | None:
    """The layout of the run's earlier sessions, by its finished copy or its checkpoints; None for a new run.

    Rows that this batch cannot have are those of other settings, which the fingerprint tells apart.
    """
    for rows, checkpointing in _recorded(out, recipe):
        product = recipe.per_device * recipe.accumulation
        if rows >= recipe.per_device and product % rows == 0:
            return StepLayout(rows, product // rows, checkpointing)
    return None


def _recorded(out: Path, recipe: Recipe) -> Iterator[tuple[int, bool]]:
    """(rows per pass, recomputing) that files of earlier sessions name, the newest first; broken files name nothing."""
    found = _read(out / FINISHED_COPY, "record")
    if found.get("rows_per_pass") is not None:
        yield found["rows_per_pass"], bool(found["checkpointing"])
    manifests = list(out.glob(f"checkpoints/checkpoint-*/{MANIFEST}"))
    manifests.sort(key=lambda path: int(path.parent.name.rpartition("-")[2]), reverse=True)
    for path in manifests:
        if found := _read(path, "fingerprint"):
            # Fields of the fingerprint that are as the study file writes them are left out of it.
            yield found.get(ROWS_PER_PASS, recipe.per_device), found.get(CHECKPOINTING, recipe.checkpointing)


def _read(path: Path, key: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
