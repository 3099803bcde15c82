"""The memory model applied to a study's cells. Imports no torch."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from loragrid.errors import UserError
from loragrid.models.shape import Shape, find_shape
from loragrid.planning.gpu_cards import PlannedDevice, named_card
from loragrid.planning.memory_model import (
    CONTEXT_MIB,
    Memory,
    ScoringSetup,
    TrainingSetup,
    scoring_memory,
    training_memory,
)
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study


def check_study_modules(study: Study, cells: Iterable[Cell]) -> None:
    """Raise `UserError` if a model lacks one of `training.target_modules`.

    Training would raise it too, but hours later. Models of unknown shape are skipped; the plan
    reports them.
    """
    for model in dict.fromkeys(cell.model for cell in cells):
        shape = None
        with suppress(UserError):
            shape = find_shape(study.models[model])
        if shape is not None:
            shape.adapted_matrices(study.training.target_modules)


def gpu_training_setup(study: Study, cell: Cell, *, bf16: bool) -> TrainingSetup:
    """The training of a cell on a GPU; `bf16`: the GPU computes in bfloat16."""
    training = study.training
    return TrainingSetup(
        precision=study.models[cell.model].precision,
        rank=cell.rank,
        target_modules=training.target_modules,
        optimizer=training.optimizer,
        per_device=cell.batch[0],
        max_length_tokens=study.data.max_length_tokens,
        compute_dtype=gpu_dtype(study, bf16=bf16),
        backend=gpu_backend(study),
        checkpointing=True,
    )


def training_setup(study: Study, cell: Cell, device: PlannedDevice) -> TrainingSetup:
    """The training of a cell on `device`; a CPU uses the trl backend and keeps activations."""
    setup = gpu_training_setup(study, cell, bf16=device.bf16)
    if device.kind == "cuda":
        return setup
    asked = study.training.compute_dtype
    dtype = "fp32" if asked == "auto" else asked
    return replace(setup, compute_dtype=dtype, backend="trl", checkpointing=False)


def training_memory_on(device: PlannedDevice, shape: Shape, setup: TrainingSetup) -> Memory:
    """`training_memory` on `device`; a CPU has no CUDA context."""
    memory = training_memory(shape, setup)
    if device.kind == "cuda":
        return memory
    return replace(memory, overhead=memory.overhead - CONTEXT_MIB)


def predict_scoring(study: Study, cell: Cell, shape: Shape, *, bf16: bool) -> Memory:
    """`scoring_memory` of a cell's adapter on its base; `bf16`: the GPU computes in bfloat16."""
    tensors = shape.adapter_tensors(rank=cell.rank, target_modules=study.training.target_modules)
    setup = ScoringSetup(
        precision=study.models[cell.model].precision,
        adapter_parameters=sum(tensors),
        batch_size=study.scoring.batch_size,
        max_length_tokens=study.data.max_length_tokens,
        compute_dtype="bf16" if bf16 else "fp16",
    )
    return scoring_memory(shape, setup)


def gpu_backend(study: Study) -> str:
    """The backend on a GPU, where `auto` is unsloth."""
    backend = study.training.backend
    return "unsloth" if backend == "auto" else backend


def gpu_dtype(study: Study, *, bf16: bool) -> str:
    """The compute dtype on a GPU, where `auto` is bf16 if the GPU has it."""
    asked = study.training.compute_dtype
    if asked != "auto":
        return asked
    return "bf16" if bf16 else "fp16"


def named_card_has_bf16(study: Study) -> bool:
    """Whether the study file's card computes in bfloat16.

    False without a card, which is safe: training in fp16 takes at least as much memory.
    """
    card = named_card(study.plan)
    return card is not None and card.bf16
