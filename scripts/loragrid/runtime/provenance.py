"""The origin of a result: library versions, git state, device, memory."""

import os
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch transformers trl peft accelerate datasets bitsandbytes unsloth unsloth_zoo liger_kernel lm_eval "
    "snakemake tokenizers safetensors numpy pandas pyarrow optuna"
).split()


def versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that can change a result."""
    return dict(_installed())


@cache
def _installed() -> dict[str, str]:
    # A job asks several times, and each package's metadata is a file to parse.
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any]:
    """Commit of this checkout and whether tracked files have changed; both None outside a git
    checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", Path(__file__).parent, *arguments], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def device_info() -> dict[str, Any]:
    """The machine and its accelerator: name, memory in MiB, CUDA version. Imports torch."""
    import torch

    info = {"host": platform.node(), "system": platform.platform(), "cpu": cpu_name(), "cpus": os.cpu_count()}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return info | {
            "kind": "cuda",
            "name": card.name,
            "vram_mib": card.total_memory // 2**20,
            "cuda": torch.version.cuda,
        }
    return info | {"kind": "cpu", "name": info["cpu"], "vram_mib": None, "cuda": None}


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def cpu_name() -> str:
    """Model of the CPU, by the system's name for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
