"""Packages that some settings need and `make study` does not install. A missing one is refused
before any work.

This module only refuses, so `code_digest` leaves it out of every stage's code.
"""

from importlib.util import find_spec

from loragrid.errors import UserError

ON_GPU = "-r requirements-gpu.txt"


def check_packages(*, file: str, backend: str, optimizer: str, report_to: str, precision: str) -> None:
    """Raise `UserError` if a package that these settings need is not installed; `file`: the study file's name."""
    if backend == "unsloth":
        require("unsloth", f"{file}: backend", install=ON_GPU, otherwise="set backend to trl")
    if "8bit" in optimizer:
        require("bitsandbytes", f"{file}: optimizer: {optimizer}", install=ON_GPU, otherwise="set it to adamw_torch")
    if report_to != "none":
        require(report_to, f"{file}: training.report_to", install=report_to, otherwise="set it to none")
    check_precision(precision, file=file)


def check_liger(*, file: str, device: str) -> None:
    """Raise `UserError` if this machine cannot run liger's kernels; `file`: the study file's name."""
    where = f"{file}: training.liger_kernels"
    if device != "cuda":
        raise UserError(f"{where}: the kernels need a CUDA GPU (device {device}). Fix: set it to false.")
    require("liger_kernel", where, install=ON_GPU, otherwise="set it to false")


def check_precision(precision: str, *, file: str = "") -> None:
    """Raise `UserError` for a 4-bit base without the package that loads it; `file`: the study file's name if known."""
    if precision == "4bit":
        where = f"{file}: precision: 4bit" if file else "precision: 4bit"
        require("bitsandbytes", where, install=ON_GPU, otherwise="set it to 16bit")


def require(package: str, setting: str, *, install: str, otherwise: str) -> None:
    """Raise `UserError` if `package`, which `setting` needs, is not installed. Imports nothing.

    `install`: the argument for pip; `otherwise`: what to do instead.
    """
    if find_spec(package) is None:
        raise UserError(
            f"{setting}: needs {package}, which is not installed. Fix: pip install {install}, or {otherwise}."
        )
