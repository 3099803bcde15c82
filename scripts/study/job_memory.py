"""Memory of the GPU that each job will take, so that the scheduler fits as many beside each other as the card holds.

Read whenever the workflow is parsed: shapes and arithmetic only, no torch, no network.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from study.cards import named_card
from study.errors import UserError
from study.grid import Cell
from study.memory_model import Memory, scoring_memory, training_memory
from study.model_shape import Shape, find_shape
from study.study_file import Study

# What nothing is known of has the card to itself: Snakemake lowers a request to the limit that it was given.
WHOLE_CARD_MIB = 1_000_000
# ASSUME: a job asks for this much more than is predicted, since no GPU has confirmed the predictions and two jobs that do not fit
# beside each other both die. It also keeps two of the t4 study's runs from sharing a T4, which would not make them faster.
ROOM = 1.4


def jobs_vram_mib(study: Study, cells: Iterable[Cell]) -> dict[str, dict[str, int]]:
    """What each job asks of a CUDA card, MiB: {"train": run → MiB, "score": run or base id → MiB}."""
    dtype = gpu_dtype(study)
    train, score = {}, {}
    for cell in cells:
        try:
            shape = find_shape(study.settings["models"][cell.model])
            if shape is None:
                raise UserError(f"the shape of {cell.model} is not known")
            training = predict_training(study, cell, shape, backend=gpu_backend(study), dtype=dtype)
            train[cell.run] = round(ROOM * training.total_mib)
            score[cell.run] = round(ROOM * predict_scoring(study, cell, shape).total_mib)
        except UserError:  # said by the plan and by the stages; here it only means: nothing beside this one
            train[cell.run] = score[cell.run] = WHOLE_CARD_MIB
        score[cell.base] = max(score[cell.run], score.get(cell.base, 0))
    return {"train": train, "score": score}


def check_target_modules(study: Study, cells: Iterable[Cell]) -> None:
    """Refuse `training.target_modules` that a model of known shape does not have, hours before its training would."""
    for model in dict.fromkeys(cell.model for cell in cells):
        shape = None
        with suppress(UserError):  # a shape that cannot be found is said by the plan
            shape = find_shape(study.settings["models"][model])
        if shape is not None:
            shape.adapted(study.settings["training"]["target_modules"])


def predict_training(
    study: Study, cell: Cell, shape: Shape, *, backend: str, dtype: str, checkpointing: bool = True, **changes: Any
) -> Memory:
    """`training_memory` of a cell. `changes` replace its settings, to ask what would make it fit."""
    training = study.settings["training"]
    asked = {
        "precision": study.settings["models"][cell.model]["precision"],
        "rank": cell.rank,
        "target_modules": training["target_modules"],
        "optimizer": training["optimizer"],
        "per_device": cell.batch[0],
        "max_length_tokens": study.settings["data"]["max_length_tokens"],
        "backend": backend,
    }
    return training_memory(shape, **(asked | changes), compute_dtype=dtype, checkpointing=checkpointing)


def predict_scoring(study: Study, cell: Cell, shape: Shape) -> Memory:
    """`scoring_memory` of a cell's adapter on its base."""
    tensors = shape.adapter_tensors(rank=cell.rank, target_modules=study.settings["training"]["target_modules"])
    return scoring_memory(
        shape,
        precision=study.settings["models"][cell.model]["precision"],
        adapters=sum(tensors),
        batch_size=study.settings["scoring"]["batch_size"],
        max_length_tokens=study.settings["data"]["max_length_tokens"],
    )


def gpu_backend(study: Study) -> str:
    """`auto` is unsloth on a GPU."""
    backend = study.settings["training"]["backend"]
    return "unsloth" if backend == "auto" else backend


def gpu_dtype(study: Study, *, bf16: bool | None = None) -> str:
    """`auto` is bf16 where the card has it; by default the study file's card, and fp16 (which takes no less) without one."""
    asked = study.settings["training"]["compute_dtype"]
    if asked != "auto":
        return asked
    if bf16 is None:
        card = named_card(study.settings["plan"])
        bf16 = card is not None and card["bf16"]
    return "bf16" if bf16 else "fp16"
