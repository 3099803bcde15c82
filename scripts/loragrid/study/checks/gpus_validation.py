"""Checks of a study whose runs take several GPUs each: the batches that they divide, and the backend.

It only refuses, so `loragrid.runtime.code_digest` leaves it out of the code of the stages.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loragrid.study.batch_shares import divided_batch, fitting_gpus
from loragrid.study.grid import arms
from loragrid.study.schema import study_error

KEY = "training.gpus"


def check_gpus(settings: Mapping[str, Any], path: Path) -> None:
    """Raise a one-line `UserError` if a run of a complete study file cannot be trained on its `training.gpus`."""
    gpus = settings["training"]["gpus"]
    if gpus == 1:
        return
    base = settings["base_case"]
    # Arms of one batch and backend are alike here.
    points = dict.fromkeys(_relevant(base | arm.departs) for arm in arms(settings))
    for rows, accumulation, backend in points:
        if backend == "unsloth":
            fix = "set backend to auto or trl, or leave training.gpus out"
            raise study_error(path, KEY, f"the backend unsloth trains on one GPU only (gpus {gpus})", fix=fix)
        if divided_batch((rows, accumulation), gpus) is None:
            found = f"{rows * accumulation} (batch {rows} × {accumulation})"
            problem = f"{gpus} GPUs do not divide the rows of an update, {found}"
            fitting = " or ".join(str(number) for number in fitting_gpus((rows, accumulation), most=gpus))
            raise study_error(path, KEY, problem, fix=f"use {fitting}, or another batch")


def _relevant(point: Mapping[str, Any]) -> tuple[int, int, str]:
    rows, accumulation = point["batch"]
    return rows, accumulation, point["backend"]
