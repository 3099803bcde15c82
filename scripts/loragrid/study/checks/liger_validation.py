"""Checks of a study whose runs train with liger's kernels: the backend, and the number of GPUs.

It only refuses, so `loragrid.runtime.code_digest` leaves it out of the code of the stages.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loragrid.study.grid import arms
from loragrid.study.schema import study_error

KEY = "training.liger_kernels"


def check_liger(settings: Mapping[str, Any], path: Path) -> None:
    """Raise a one-line `UserError` if a run of a complete study file cannot be trained with liger's kernels."""
    training = settings["training"]
    if not training["liger_kernels"]:
        return
    base = settings["base_case"]
    for backend in dict.fromkeys([base["backend"], *((base | arm.departs)["backend"] for arm in arms(settings))]):
        if backend != "trl":
            # unsloth has kernels of its own, and `auto` is unsloth for some runs.
            problem = f"only the backend trl trains with them (backend {backend})"
            raise study_error(path, KEY, problem, fix="set base_case.backend to trl, or liger_kernels to false")
    if training["gpus"] > 1:
        problem = f"they train a run on one GPU only (training.gpus {training['gpus']})"
        raise study_error(path, KEY, problem, fix="leave one of the two keys out")
