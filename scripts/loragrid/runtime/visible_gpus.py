"""The NVIDIA GPUs that this process may use, by the driver, and whether the installed torch can use them.

Imports no torch: the workflow asks at every call, and a job before it imports anything.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from loragrid.errors import UserError, first_line

VARIABLE = "CUDA_VISIBLE_DEVICES"
# First driver release that runs programs of a CUDA release ("CUDA Compatibility", docs.nvidia.com/deploy, minor
# version compatibility).
FIRST_DRIVER = {11: 450, 12: 525, 13: 580}
ON_CPU = f"set {VARIABLE}= (empty) to use the CPU"


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi lists it; `driver` is the driver's version."""

    uuid: str
    name: str
    memory_mib: int
    driver: str


@dataclass(frozen=True)
class TorchBuild:
    """The installed torch: its version, and the CUDA release that it was built for, None for a CPU build."""

    version: str
    cuda: str | None


@cache
def driver_gpus() -> tuple[Gpu, ...]:
    """All GPUs of this machine; none without a driver, or with one that does not answer."""
    command = ["nvidia-smi", "--query-gpu=uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        rows = [[value.strip() for value in line.split(",")] for line in done.stdout.strip().splitlines()]
        return tuple(Gpu(uuid, name, int(memory), driver) for uuid, name, memory, driver in rows)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def visible_devices() -> tuple[str, ...]:
    """The GPUs that CUDA shows to this process, by number or UUID: all, or those in CUDA_VISIBLE_DEVICES."""
    given = os.environ.get(VARIABLE)
    if given is None:
        # By UUID, because CUDA and nvidia-smi number the cards differently.
        return tuple(gpu.uuid for gpu in driver_gpus())
    visible = []
    for device in (part.strip() for part in given.split(",")):
        # CUDA ignores an invalid device and all that follow it.
        if not device or device == "-1":
            break
        visible.append(device)
    return tuple(visible)


def visible_gpu() -> Gpu | None:
    """A GPU of this machine if this process may use any, else None."""
    gpus = driver_gpus()
    return gpus[0] if gpus and visible_devices() else None


def torch_build() -> TorchBuild | None:
    """The installed torch, read from its files without importing it; None if there is none."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    values = dict(re.findall(r"^(\w+)(?::[^=]+)? = '([^']*)'", text, flags=re.MULTILINE))
    return TorchBuild(values.get("__version__", ""), values.get("cuda"))


def check_torch_build() -> None:
    """Raise `UserError` if the installed torch cannot use this machine's visible GPU, by its build and the driver."""
    gpu, build = visible_gpu(), torch_build()
    if gpu is None or build is None:
        return
    if build.cuda is None:
        raise UserError(
            f"torch: {build.version} is a build for CPUs, and nvidia-smi sees a {gpu.name} (driver {gpu.driver}). "
            f"Fix: pip uninstall --yes torch, then pip install -r requirements-gpu.txt; or {ON_CPU}."
        )
    needed = FIRST_DRIVER.get(_major(build.cuda))
    if needed is not None and _major(gpu.driver) < needed:
        raise UserError(
            f"driver: version {gpu.driver} of the {gpu.name} is too old for torch {build.version}, which is built "
            f"for CUDA {build.cuda}. Fix: install driver {needed} or newer; or {ON_CPU}."
        )


def check_torch_sees_gpu() -> None:
    """Raise `UserError` if torch, which this imports, sees no GPU where the driver shows one to this process."""
    import torch

    gpu = visible_gpu()
    if gpu is None or torch.cuda.is_available():
        return
    check_torch_build()
    try:
        torch.cuda.init()
        reason = "it finds no device"
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
    raise UserError(
        f"torch: {torch.__version__} for CUDA {torch.version.cuda} cannot use the {gpu.name} (driver {gpu.driver}) "
        f"that nvidia-smi sees ({reason}). Fix: restart the machine or update the driver; or {ON_CPU}."
    )


def check_gpu_count(gpus: int) -> None:
    """Raise `UserError` if this process is shown GPUs, but fewer than one run is to use (`training.gpus`)."""
    count = len(visible_devices())
    if 0 < count < gpus:
        given = os.environ.get(VARIABLE, "not set")
        fix = f"set training.gpus to {count}" if count > 1 else "leave training.gpus out"
        raise UserError(f"training.gpus: {gpus} asked for and {count} visible ({VARIABLE}: {given}). Fix: {fix}.")


def check_one_gpu() -> None:
    """Raise `UserError` if torch, which this imports, would spread one job over several GPUs."""
    import torch

    count = torch.cuda.device_count()
    if count > 1:
        # transformers' Trainer multiplies the batch by their number, and a 4-bit base cannot be replicated.
        raise UserError(
            f"{VARIABLE}: one job sees {count} GPUs, which would multiply its batch by {count} "
            f"({os.environ.get(VARIABLE, 'not set')}). Fix: set {VARIABLE}=0, or another single card."
        )


def _major(version: str) -> int:
    return int(re.match(r"\d*", version)[0] or 0)
