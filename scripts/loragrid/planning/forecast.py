"""The forecast of a cell: its memory and whether that fits, its updates, operations and hours."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from loragrid.errors import UserError
from loragrid.models.flops import forward_per_token, training_per_token
from loragrid.models.shape import Shape, find_shape
from loragrid.planning.gpu_cards import Device, read_cards
from loragrid.planning.job_memory import gpu_backend, gpu_dtype, predict_training
from loragrid.planning.measurements import DataSize, Measured
from loragrid.planning.memory_model import CONTEXT_MIB, Memory, computed_in
from loragrid.study.budget import updates
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run has to do. `flops` by part, of all updates and of measuring the held-out loss; None where the number of
    rows is not known and the budget is in epochs."""

    steps: int | None
    tokens: int | None
    flops: dict[str, float]

    @property
    def total_flops(self) -> float | None:
        """All operations of the run."""
        return sum(self.flops.values()) if self.flops else None


def device_for(study: Study, shape: Shape, device: Device) -> Device:
    """The device as that model uses it: in float32 where the model overflows float16 and the device has no bfloat16."""
    dtype = gpu_dtype(study, bf16=device.bf16)
    if device.kind != "cuda" or computed_in(shape, dtype) != "fp32":
        return device
    slow = device.in_float32()
    return replace(slow, slowdown=1.0) if dtype == "fp32" else slow  # where all models are, none is slower than others


def memory_here(study: Study, cell: Cell, shape: Shape, device: Device, **changes: Any) -> Memory:
    """Predicted peak on that device; a CPU neither recomputes activations nor holds a CUDA context."""
    if device.kind == "cuda":
        dtype = gpu_dtype(study, bf16=device.bf16)
        return predict_training(study, cell, shape, **({"backend": gpu_backend(study)} | changes), dtype=dtype)
    asked = study.training.compute_dtype
    found = predict_training(
        study,
        cell,
        shape,
        **({"backend": "trl"} | changes),
        dtype="fp32" if asked == "auto" else asked,
        checkpointing=False,
    )
    return Memory(**(vars(found) | {"overhead": found.overhead - CONTEXT_MIB}))


def work_of(study: Study, cell: Cell, shape: Shape, data: DataSize, *, recomputes: bool) -> Work:
    """Updates, tokens and operations of a run. `recomputes`: whether it computes its activations twice, as training on a GPU
    does to save memory."""
    training, settings = study.training, study.data
    per_device, accumulation = cell.batch
    steps = updates(
        training.budget,
        rows=data.rows,
        row_tokens=data.row_tokens,
        per_device=per_device,
        accumulation=accumulation,
    )
    if steps is None:
        return Work(steps=None, tokens=None, flops={})
    tokens = round(steps * per_device * accumulation * data.row_tokens)
    per_token = training_per_token(
        shape,
        rank=cell.rank,
        target_modules=training.target_modules,
        row_tokens=data.row_tokens,
        checkpointing=recomputes,
    )
    measurements = 1 + math.ceil(steps / training.evaluate_every_steps)
    heldout = measurements * settings.heldout_rows * data.row_tokens
    flops = {part: tokens * value for part, value in per_token.items()}
    return Work(
        steps=steps,
        tokens=tokens,
        flops=flops | {"held-out loss": heldout * forward_per_token(shape, row_tokens=data.row_tokens)},
    )


def rate_of(
    cell: Cell, works: dict[str, Work], cells: tuple[Cell, ...], measured: Measured, device: Device
) -> tuple[float | None, str]:
    """TFLOPS to reckon with for a cell, and where they come from: runs of the same model that have finished on such a
    device, else any runs, else the card's."""
    for same_model in (True, False):
        done = [c for c in cells if c.run in measured.runs and (c.model == cell.model or not same_model)]
        done = [c for c in done if c.run in works and works[c.run].total_flops]
        if done:
            flops = sum(done_flops(works[c.run], measured.runs[c.run]) for c in done)
            seconds = sum(measured.runs[c.run].train_seconds for c in done)
            whose = cell.model if same_model else "other models"
            slowdown = 1.0 if same_model or device is None else device.slowdown
            return (
                slowdown * flops / seconds / 1e12,
                f"measured here on {len(done)} run{'s' * (len(done) > 1)} of {whose}",
            )
    return device.rate_tflops, device.rate_from


def done_flops(work: Work, record: Any) -> float:
    """Operations of a run that has ended; one that diverged did a part of its updates."""
    return work.total_flops * min(1.0, record.steps / work.steps)


def misfits(study: Study, cells: Iterable[Cell], device: Device) -> list[str]:
    """One line per cell that is predicted not to fit the card that is here, and one for arithmetic that a CPU does not do.

    Lines and no refusal: where a cluster runs the jobs, the card is not in this machine.
    """
    lines = []
    if device.kind == "cpu" and study.training.compute_dtype == "fp16":
        lines.append(
            "training.compute_dtype: no GPU is here, and a CPU does not train in fp16: set it to fp32, bf16 or auto"
        )
    for cell in cells if device.kind == "cuda" and device.found and device.vram_mib else ():
        try:
            shape = find_shape(study.models[cell.model])
            need = memory_here(study, cell, shape, device).total_mib if shape else 0
        except UserError:  # the plan and the train stage say it
            continue
        if need > device.vram_mib:
            lines.append(
                f"{cell.run} will hardly fit: {need:,} MiB predicted, {device.name} has {device.vram_mib:,} "
                "(`snakemake --cores 1 plan` says what would make it fit)"
            )
    return lines


def mends(study: Study, cell: Cell, shape: Shape, device: Device) -> Iterator[str]:
    """What would make a cell fit the device, each change alone; none of it is done by itself."""

    def total(**changes: Any) -> int:
        return memory_here(study, cell, shape, device, **changes).total_mib

    per_device, accumulation = cell.batch
    for rows in range(per_device - 1, 0, -1):
        if (per_device * accumulation) % rows == 0 and total(per_device=rows) <= device.vram_mib:
            yield f"batch [{rows}, {per_device * accumulation // rows}] ({total(per_device=rows):,} MiB)"
            break
    length = study.data.max_length_tokens
    for shorter in (length * 3 // 4, length // 2, length // 4, length // 8):
        if total(max_length_tokens=shorter) <= device.vram_mib:
            yield f"data.max_length_tokens {shorter} ({total(max_length_tokens=shorter):,} MiB)"
            break
    if device.kind == "cuda":
        if gpu_backend(study) == "trl" and total(backend="unsloth") <= device.vram_mib:
            yield f"training.backend unsloth ({total(backend='unsloth'):,} MiB)"
        precision = study.models[cell.model].precision
        if precision != "4bit" and total(precision="4bit") <= device.vram_mib:
            yield f"precision 4bit ({total(precision='4bit'):,} MiB)"
        need = total()
        larger = sorted((card["memory_mib"], key) for key, card in read_cards().items() if card["memory_mib"] >= need)
        if larger:
            yield f"a card such as {larger[0][1]} ({larger[0][0]:,} MiB)"
