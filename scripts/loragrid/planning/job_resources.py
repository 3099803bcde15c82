"""What each job asks of the scheduler: memory of the card, memory of the machine, minutes. From the plan's predictions.

Read whenever the workflow is parsed, on a cluster's login node too: for the card that the study file names, whatever is
here. Shapes and arithmetic only, no torch, no network.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.models.shape import Shape, find_shape
from loragrid.planning.forecast import device_for, memory_here, work_of
from loragrid.planning.gpu_cards import Device, choose_device
from loragrid.planning.job_memory import card_has_bf16, gpu_backend, gpu_dtype, predict_scoring, predict_training
from loragrid.planning.measurements import data_size
from loragrid.planning.memory_model import weight_bytes
from loragrid.planning.scoring_cost import scoring_seconds
from loragrid.study.grid import Cell
from loragrid.study.search_space import searched_space
from loragrid.study.study_file import Study

# What nothing is known of has the card to itself: Snakemake lowers a request to the limit that it was given.
WHOLE_CARD_MIB = 1_000_000
# ASSUME: a job asks for this much more than is predicted, since no GPU has confirmed the predictions and two jobs that do not fit
# beside each other both die. It also keeps two of the t4 study's runs from sharing a T4, which would not make them faster.
ROOM = 1.4
# ASSUME: hours are known less well than memory, and a job that is cut at its limit waits in the queue once more.
TIME_ROOM, START_MINUTES = 2.0, 10
UNKNOWN_MINUTES, UNKNOWN_MIB = 240, 16_000
# ASSUME: Python with the CUDA libraries takes so much of the machine's memory, and a base goes through it in 16 bits, twice at
# the worst; without a card there are no such libraries, and all that the run takes lies there.
CUDA_HOST_MIB, CPU_HOST_MIB = 4_000, 1_500

Request = dict[str, int]  # vram_mib, mem_mb, runtime


def jobs_resources(
    study: Study, cells: Iterable[Cell], *, results: Path, session_minutes: float | None
) -> dict[str, dict[str, Request]]:
    """What each job asks for: {"train": run → request, "score": run or base → request, "tune": {"tune": request}}.

    `vram_mib` in MiB, `mem_mb` (of the machine) in MB, `runtime` in minutes, at most a session: a job that needs longer is
    cut at a checkpoint and submitted again. Cells that differ in learning rate or seed alone ask for the same.
    """
    longest = session_length(study, session_minutes)
    device = choose_device(study.plan, look=False)
    known: dict[Any, dict[str, Request]] = {}
    train, score, search = {}, {}, None
    for cell in cells:
        key = cell.model, cell.rank, cell.batch
        if key not in known:
            known[key] = _requests(study, cell, device, results=results, longest=longest)
        asked = known[key]
        train[cell.run] = asked["train"]
        score[cell.run] = asked["score"]
        largest = score.get(cell.base, asked["score"])
        score[cell.base] = {name: max(value, largest[name]) for name, value in asked["score"].items()}
        if search is None:  # the base case, from which a search departs, stands first
            search = _search_request(study, cell, asked["train"], longest=longest)
    return {"train": train, "score": score, "tune": {"tune": search}}


def session_length(study: Study, asked: float | None) -> float | None:
    """Minutes of a session: as asked on the command line, else as the study file says, None for no end."""
    return asked or study.training.session_minutes or study.plan.session_minutes


def _requests(study: Study, cell: Cell, device: Device, *, results: Path, longest: float | None) -> dict[str, Request]:
    try:
        shape = find_shape(study.models[cell.model])
        if shape is None:
            raise UserError(f"the shape of {cell.model} is not known")
        training = predict_training(study, cell, shape, backend=gpu_backend(study), dtype=gpu_dtype(study)).total_mib
        scoring = predict_scoring(study, cell, shape, bf16=card_has_bf16(study)).total_mib
        host = _host_mib(study, cell, shape, device)
        hours = _hours(study, cell, shape, device, results)
    except UserError:  # said by the plan and by the stages; here it only means: nothing beside this one
        training = scoring = WHOLE_CARD_MIB / ROOM
        host, hours = UNKNOWN_MIB, (None, None)
    return {
        stage: {"vram_mib": round(ROOM * vram), "mem_mb": host, "runtime": _minutes(spent, longest)}
        for stage, vram, spent in (("train", training, hours[0]), ("score", scoring, hours[1]))
    }


def _host_mib(study: Study, cell: Cell, shape: Shape, device: Device) -> int:
    if device.kind == "cuda":
        needed = CUDA_HOST_MIB + 2 * weight_bytes(shape, "16bit", backend="trl") / 2**20
    else:
        needed = CPU_HOST_MIB + memory_here(study, cell, shape, device).total_mib
    return 100 * math.ceil(needed / 100)  # no better known, and cells that differ in a few MiB ask for the same


def _hours(study: Study, cell: Cell, shape: Shape, device: Device, results: Path) -> tuple[float | None, float | None]:
    """Of training and of scoring; None where no rate or no number of rows is known."""
    device = device_for(study, shape, device)
    if device.rate_tflops is None:
        return None, None
    data = data_size(study, cell.data, results)
    flops = work_of(study, cell, shape, data, recomputes=device.kind == "cuda").total_flops
    seconds = scoring_seconds(
        shape,
        scoring=study.scoring,
        heldout_rows=study.data.heldout_rows,
        row_tokens=data.row_tokens,
        tflops=device.rate_tflops,
    )
    training = flops / (device.rate_tflops * 1e12) / 3600 if flops else None
    return training, None if None in seconds.values() else sum(seconds.values()) / 3600


def _minutes(hours: float | None, longest: float | None) -> int:
    wanted = UNKNOWN_MINUTES if hours is None else START_MINUTES + TIME_ROOM * 60 * hours
    return math.ceil(wanted if longest is None else longest if hours is None else min(wanted, longest))


def _search_request(study: Study, cell: Cell, asked: Request, *, longest: float | None) -> Request:
    """Of a search: all its workers at once, each with the largest trial of the space; pruning makes its length a guess."""
    tune = study.tune
    if tune is None:
        return asked
    space = {name: max(values.get("choices") or [values["high"]]) for name, values in searched_space(tune).items()}
    vram = WHOLE_CARD_MIB
    if asked["vram_mib"] < WHOLE_CARD_MIB:
        shape = find_shape(study.models[cell.model])
        largest = {"per_device": space.get("batch", cell.batch[0]), "rank": space.get("rank", cell.rank)}
        one = predict_training(study, cell, shape, backend=gpu_backend(study), dtype=gpu_dtype(study), **largest)
        vram = round(ROOM * one.total_mib * tune.workers)
    return {"vram_mib": vram, "mem_mb": tune.workers * asked["mem_mb"], "runtime": _minutes(None, longest)}
