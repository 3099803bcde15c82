"""The resident workers of a local run: where its jobs find them, and which jobs can share one."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from loragrid.planning.job_memory import gpu_backend
from loragrid.planning.job_resources import MEMORY_MARGIN
from loragrid.planning.memory_model import CONTEXT_MIB
from loragrid.runtime.atomic_files import write_json
from loragrid.runtime.delegation.client import FORK_SERVER, WORKERS
from loragrid.runtime.delegation.worker_pool import KINDS
from loragrid.runtime.visible_gpus import Gpu, visible_gpu
from loragrid.scoring.vllm_engine.server import CARD_SHARE
from loragrid.study.grid import Cell
from loragrid.workflow.jobs import Jobs


def start_workers(jobs: Jobs, *, local: bool, warm: bool, wanted: bool | None) -> None:
    """Name the folder where the first job starts the pool of workers, if the jobs of this call can have some.

    `warm`: the option of that name, False for a process of its own for each job on a CPU; `wanted`: the option `worker`,
    None for `auto`. A fork server has workers of its own.
    """
    os.environ.pop(WORKERS, None)
    gpu = visible_gpu()
    if wanted is False or (wanted is None and gpu is None and not warm) or FORK_SERVER in os.environ:
        return
    # A worker would keep its base on a card that the next run needs, which takes several.
    alone = jobs.study.training.gpus == 1
    if not (local and alone and hasattr(os, "pidfd_open")):
        if wanted:
            reason = "needs Linux 5.3 or newer (pidfd)" if local else "is only for jobs on this machine"
            if not alone:
                reason = "is only for runs on one GPU (training.gpus)"
            print(f"loragrid: --config worker=true {reason}: each job has a process of its own", file=sys.stderr)
        return
    folder = tempfile.mkdtemp(prefix="loragrid-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Path(folder, "owner").write_text(str(os.getpid()))
    write_json(Path(folder, KINDS), job_kinds(jobs, gpu))
    os.environ[WORKERS] = folder


def job_kinds(jobs: Jobs, gpu: Gpu | None) -> dict[str, Any]:
    """The distinct `JobKind`s of a study's jobs, and the number of each job's kind by stage and name."""
    kinds: dict[tuple, int] = {}
    names: dict[str, dict[str, int]] = {"train": {}, "score": {}}
    study, gpu_mib = jobs.study, 0 if gpu is None else gpu.memory_mib

    def add(stage: str, name: str, cell: Cell) -> None:
        if stage == "score" and study.scoring.engine == "vllm":
            # The worker beside the engine, and an idle one.
            needed_mib = gpu_mib * CARD_SHARE + 2 * CONTEXT_MIB
            process = ("vllm", "vllm")
        else:
            # The prediction, with the CUDA context of an idle worker.
            needed_mib = jobs.request(stage, name)["vram_mib"] / MEMORY_MARGIN + CONTEXT_MIB
            process = _process(stage, cell, gpu=gpu is not None, liger=study.training.liger_kernels)
        alone = gpu is not None and needed_mib > gpu_mib
        base = _base(cell) if stage == "train" else f"{cell.model} {study.scored_entry(cell).precision}"
        kind = (*process, base, alone)
        names[stage][name] = kinds.setdefault(kind, len(kinds))

    for cell in study.cells:
        add("train", cell.run, cell)
        add("score", cell.run, cell)
    for name, cell in study.bases.items():
        add("score", name, cell)
    for name, adopted in study.adopted.items():
        add("score", name, adopted.cell)
    return {"kinds": list(kinds), "names": names}


def _base(cell: Cell) -> str:
    return f"{cell.model} {cell.settings.precision}"


def _process(stage: str, cell: Cell, *, gpu: bool, liger: bool) -> tuple[str, str]:
    """The family of the worker that does a job, and what its process must have been started for."""
    settings = cell.settings
    if stage != "train":
        return "plain", "plain"
    backend = settings.backend
    if backend == "auto":
        backend = gpu_backend(settings) if gpu else "trl"
    if backend == "unsloth":
        # It changes its libraries for the model that it loads, in the type that it computes in.
        return "unsloth", f"unsloth {_base(cell)} {settings.compute_dtype} {settings.max_length_tokens}"
    if liger:
        # It replaces names in the models' modules.
        return "liger", "liger"
    return "plain", "plain"
