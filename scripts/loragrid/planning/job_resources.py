"""Resources that each job requests from the scheduler, from the plan's predictions.

Computed whenever the workflow is parsed, also on a cluster's login node: for the card that the
study file names, whatever GPU this machine has. Shapes and arithmetic only, no torch, no network.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.models.find_shape import find_shape
from loragrid.models.shape import Shape
from loragrid.planning.forecast import Workload, device_for_model, workload_of
from loragrid.planning.gpu_cards import PlannedDevice, planned_device
from loragrid.planning.job_memory import (
    MEMORY_MARGIN,
    gpu_training_setup,
    named_card_has_bf16,
    planned_layout,
    request_key,
    requested_setup,
    training_memory_on,
    training_setup,
    with_layout,
)
from loragrid.planning.measurements import data_size
from loragrid.planning.memory_model import training_memory, weight_bytes
from loragrid.planning.scoring_cost import scoring_seconds
from loragrid.planning.scoring_memory import predict_scoring
from loragrid.planning.step_time import training_seconds
from loragrid.study.batch_shares import StepLayout
from loragrid.study.grid import Cell
from loragrid.study.methods import METHODS
from loragrid.study.settings import Settings
from loragrid.study.study_file import Study

# A job of unknown size reserves the whole GPU: Snakemake lowers a request to the limit it was given.
WHOLE_GPU_MIB = 1_000_000
# More than half, so that two training jobs do not share a card that one keeps busy: both would only be slower.
BUSY_SHARE = 0.6
# ASSUME: hours are predicted less well than memory, and a job that is cut at its limit waits in the queue once more.
TIME_MARGIN, STARTUP_MINUTES = 2.0, 10
UNKNOWN_MINUTES, UNKNOWN_HOST_MIB = 240, 16_000
# ASSUME: Python with the CUDA libraries takes 4,000 MiB of the machine's memory, and loading a base
# takes up to twice its 16-bit size. Without a GPU there are no such libraries, but the whole run is
# in the machine's memory.
CUDA_HOST_MIB, CPU_HOST_MIB = 4_000, 1_500

Request = dict[str, int]  # vram_mib, mem_mb, runtime, gpu


@dataclass(frozen=True)
class _Context:
    """What all requests of a study share; `longest_minutes` is the length of a session."""

    study: Study
    device: PlannedDevice
    results: Path
    longest_minutes: float | None


def resource_requests(
    study: Study, cells: Iterable[Cell], *, results: Path, session_minutes: float | None
) -> dict[str, dict[str, Request]]:
    """Requests by stage and name: "train" by run, "score" by run or base, "tune" by "tune".

    `gpu` is the number of GPUs, `vram_mib` (of each) in MiB, `mem_mb` (of the machine) in MB, `runtime` in minutes, at
    most one session: a longer job is cut at a checkpoint and submitted again. Cells that differ in learning rate, seed
    or another of `FREE_SETTINGS` alone have equal requests.
    """
    context = _Context(
        study=study,
        device=planned_device(study.plan, detect=False),
        results=results,
        longest_minutes=session_length(study, session_minutes),
    )
    known: dict[Any, dict[str, Request]] = {}
    train, score, search = {}, {}, None
    for cell in cells:
        # A study may have thousands of cells, and this runs at every call of snakemake.
        key = request_key(cell.settings)
        if key not in known:
            known[key] = _cell_requests(context, cell)
        requests = known[key]
        train[cell.run] = requests["train"]
        score[cell.run] = requests["score"]
        # A base requests as much as the largest of its runs.
        score[cell.base] = _larger(score.get(cell.base, requests["score"]), requests["score"])
        if search is None:  # the first cell is the base case, from which a search departs
            search = _search_request(context, cell, requests["train"])
    return {"train": train, "score": score, "tune": {"tune": search}}


def _larger(one: Request, other: Request) -> Request:
    return {name: max(one[name], other[name]) for name in one}


def session_length(study: Study, asked_minutes: float | None) -> float | None:
    """Minutes of a session: the command line's, else the study file's; None for no limit."""
    return asked_minutes or study.training.session_minutes or study.plan.session_minutes


def _cell_requests(context: _Context, cell: Cell) -> dict[str, Request]:
    study = context.study
    bf16 = named_card_has_bf16(study)
    try:
        shape = find_shape(study.models[cell.model])
        if shape is None:
            raise UserError(f"the shape of {cell.model} is unknown")
        train_mib = training_memory(shape, requested_setup(study, cell.settings, shape, bf16=bf16)).total_mib
        score_mib = predict_scoring(study, cell, shape, bf16=bf16).total_mib
        if study.scoring.engine == "vllm":  # takes whatever the card has
            score_mib = WHOLE_GPU_MIB / MEMORY_MARGIN
        train_mib = max(train_mib, _busy_mib(context, cell, shape))
        host_mib = _host_mib(context, cell, shape)
        train_hours, score_hours = _hours(context, cell, shape)
    except UserError:  # reported by the plan and by the stages
        train_mib = score_mib = WHOLE_GPU_MIB / MEMORY_MARGIN
        host_mib, train_hours, score_hours = UNKNOWN_HOST_MIB, None, None
    return {
        "train": _on_gpus(_request(context, train_mib, host_mib, train_hours), study.training.gpus),
        "score": _request(context, score_mib, host_mib, score_hours),
    }


def _request(context: _Context, vram_mib: float, host_mib: int, hours: float | None) -> Request:
    return {
        "vram_mib": round(MEMORY_MARGIN * vram_mib),
        "mem_mb": host_mib,
        "runtime": _minutes(hours, context.longest_minutes),
        "gpu": 1,
    }


def _on_gpus(request: Request, gpus: int) -> Request:
    """The request of a run that `gpus` processes train, each with a GPU and the libraries and the base of its own."""
    return request | {"gpu": gpus, "mem_mb": gpus * request["mem_mb"]}


def _host_mib(context: _Context, cell: Cell, shape: Shape) -> int:
    """Memory of the machine, rounded up to 100 MiB so that similar cells have equal requests."""
    device = context.device
    if device.kind == "cuda":
        needed = CUDA_HOST_MIB + 2 * weight_bytes(shape, "16bit", backend="trl") / 2**20
    else:
        setup = training_setup(cell.settings, device, liger=context.study.training.liger_kernels)
        setup = with_layout(setup, _layout(context, cell, shape))
        needed = CPU_HOST_MIB + training_memory_on(device, shape, setup).total_mib
    return 100 * math.ceil(needed / 100)


def _busy_mib(context: _Context, cell: Cell, shape: Shape) -> float:
    """MiB, before the margin, of a run that keeps the card busy; 0 if starting its operations takes longer."""
    device = device_for_model(cell.settings, shape, context.device)
    workload = _workload(context, cell, shape)
    if device.vram_mib is None or not device.rate_tflops or not workload.total_flops:
        return 0.0
    arithmetic_seconds = workload.total_flops / (device.rate_tflops * 1e12)
    if arithmetic_seconds < workload.operations * device.launch_seconds:
        return 0.0
    return BUSY_SHARE * device.vram_mib / MEMORY_MARGIN


def _workload(context: _Context, cell: Cell, shape: Shape) -> Workload:
    data = data_size(context.study, cell, context.results)
    return workload_of(context.study, cell, shape, data, layout=_layout(context, cell, shape))


def _layout(context: _Context, cell: Cell, shape: Shape) -> StepLayout:
    data = data_size(context.study, cell, context.results)
    return planned_layout(context.study, cell.settings, shape, context.device, row_tokens=data.row_tokens)


def _hours(context: _Context, cell: Cell, shape: Shape) -> tuple[float | None, float | None]:
    """Hours of training and of scoring; None if the rate or the size of the work is unknown."""
    study = context.study
    device = device_for_model(cell.settings, shape, context.device)
    if device.rate_tflops is None:
        return None, None
    workload = _workload(context, cell, shape)
    train_hours = None
    if workload.total_flops:
        seconds = training_seconds(workload.total_flops, workload.operations, device.rate())
        train_hours = seconds / 3600 / study.training.gpus
    tokens, tflops = data_size(study, cell, context.results).row_tokens, device.rate_tflops
    work = {"scoring": study.scoring, "heldout_rows": study.heldout.rows, "row_tokens": tokens}
    seconds = scoring_seconds(shape, **work, tflops=tflops, on_cpu=device.kind == "cpu")
    if None in seconds.values():
        return train_hours, None
    return train_hours, sum(seconds.values()) / 3600


def _minutes(hours: float | None, longest_minutes: float | None) -> int:
    """Minutes to request for a job of `hours`; a job of unknown length requests a whole session."""
    if hours is None:
        return math.ceil(longest_minutes or UNKNOWN_MINUTES)
    wanted = STARTUP_MINUTES + TIME_MARGIN * 60 * hours
    if longest_minutes is not None:
        # A longer job would only wait longer in the queue: the session ends it anyway.
        wanted = min(wanted, longest_minutes)
    return math.ceil(wanted)


def _search_request(context: _Context, base_case: Cell, training: Request) -> Request:
    """Request of a search: all its workers at once, each with the largest trial of the space.

    Pruning makes its length unpredictable, so it requests a whole session.
    """
    study, tune = context.study, context.study.tune
    if tune is None:
        return training | {"gpu": 1}
    vram_mib = WHOLE_GPU_MIB
    if training["vram_mib"] < WHOLE_GPU_MIB:
        shape = find_shape(study.models[base_case.model])
        bf16, liger = named_card_has_bf16(study), study.training.liger_kernels
        needed = [
            training_memory(shape, gpu_training_setup(settings, bf16=bf16, liger=liger)).total_mib
            for settings in _largest_trials(base_case.settings, tune.spaces[tune.space])
        ]
        largest = max(*needed, _busy_mib(context, base_case, shape))
        vram_mib = round(MEMORY_MARGIN * largest * tune.workers)
    return {
        "vram_mib": vram_mib,
        "mem_mb": tune.workers * training["mem_mb"] // study.training.gpus,
        "runtime": _minutes(None, context.longest_minutes),
        "gpu": 1,
    }


def _largest_trials(base: Settings, space: Mapping[str, Mapping[str, Any]]) -> Iterator[Settings]:
    """The largest trial of a search space for each method and set of modules that it has."""
    numbers = {}
    for name in ("rank", "max_length_tokens"):
        if name in space:
            numbers[name] = max(space[name].get("choices") or [space[name]["high"]])
    if "batch" in space:
        numbers["batch"] = max(tuple(batch) for batch in space["batch"]["choices"])
    for method in space.get("method", {}).get("choices", [base.method]):
        for modules in space.get("target_modules", {}).get("choices", [base.target_modules]):
            settings = replace(base, **numbers, method=method)
            has = METHODS[method].settings
            yield replace(
                settings,
                rank=settings.rank if "rank" in has else None,
                target_modules=modules if "target_modules" in has else None,
            )
