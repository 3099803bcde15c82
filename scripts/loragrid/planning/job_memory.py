"""Memory of the GPU that a study's cells take: the memory model, asked with the study's settings. Imports no torch."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from loragrid.errors import UserError
from loragrid.models.shape import Shape, find_shape
from loragrid.planning.gpu_cards import named_card
from loragrid.planning.memory_model import Memory, scoring_memory, training_memory
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study


def check_target_modules(study: Study, cells: Iterable[Cell]) -> None:
    """Refuse `training.target_modules` that a model of known shape does not have, hours before its training would."""
    for model in dict.fromkeys(cell.model for cell in cells):
        shape = None
        with suppress(UserError):  # a shape that cannot be found is said by the plan
            shape = find_shape(study.models[model])
        if shape is not None:
            shape.adapted_matrices(study.training.target_modules)


def predict_training(
    study: Study, cell: Cell, shape: Shape, *, backend: str, dtype: str, checkpointing: bool = True, **changes: Any
) -> Memory:
    """`training_memory` of a cell. `changes` replace its settings, to ask what would make it fit."""
    training = study.training
    asked = {
        "precision": study.models[cell.model].precision,
        "rank": cell.rank,
        "target_modules": training.target_modules,
        "optimizer": training.optimizer,
        "per_device": cell.batch[0],
        "max_length_tokens": study.data.max_length_tokens,
        "backend": backend,
    }
    return training_memory(shape, **(asked | changes), compute_dtype=dtype, checkpointing=checkpointing)


def predict_scoring(study: Study, cell: Cell, shape: Shape, *, bf16: bool) -> Memory:
    """`scoring_memory` of a cell's adapter on its base, on a card that computes in bfloat16 or one that does not."""
    tensors = shape.adapter_tensors(rank=cell.rank, target_modules=study.training.target_modules)
    return scoring_memory(
        shape,
        precision=study.models[cell.model].precision,
        adapters=sum(tensors),
        batch_size=study.scoring.batch_size,
        max_length_tokens=study.data.max_length_tokens,
        compute_dtype="bf16" if bf16 else "fp16",
    )


def gpu_backend(study: Study) -> str:
    """`auto` is unsloth on a GPU."""
    backend = study.training.backend
    return "unsloth" if backend == "auto" else backend


def gpu_dtype(study: Study, *, bf16: bool | None = None) -> str:
    """`auto` is bf16 where the card has it; by default the study file's card, and fp16 (which takes no less) without one."""
    asked = study.training.compute_dtype
    if asked != "auto":
        return asked
    if bf16 is None:
        bf16 = card_has_bf16(study)
    return "bf16" if bf16 else "fp16"


def card_has_bf16(study: Study) -> bool:
    """Of the card that the study file names; False (which takes no less memory) where it names none."""
    card = named_card(study.plan)
    return card is not None and card["bf16"]
