"""Packages that some settings need and `make study` does not install: missed before any work, never replaced by another.

Only refuses, so that `loragrid.runtime.code_digest` leaves this module out of every stage's code.
"""

from importlib.util import find_spec

from loragrid.errors import UserError

ON_GPU = "-r requirements-gpu.txt"


def check_packages(*, backend: str, optimizer: str, report_to: str, precision: str) -> None:
    """Refuse to begin when a package that these settings need is not installed: a one-line `UserError`."""
    if backend == "unsloth":
        require("unsloth", "training.backend", install=ON_GPU, mend="set training.backend to trl")
    if "8bit" in optimizer:
        require("bitsandbytes", f"training.optimizer: {optimizer}", install=ON_GPU, mend="set it to adamw_torch")
    if report_to != "none":
        require(report_to, "training.report_to", install=report_to, mend="set it to none")
    check_precision(precision)


def check_precision(precision: str) -> None:
    """Refuse a 4-bit base without the package that loads it."""
    if precision == "4bit":
        require("bitsandbytes", "a model's precision 4bit", install=ON_GPU, mend="set it to 16bit")


def require(package: str, setting: str, *, install: str, mend: str) -> None:
    """Refuse `setting` where `package` is not installed, which costs no import. `install`: what pip is to be given."""
    if find_spec(package) is None:
        raise UserError(f"{setting} needs {package}, which is not installed: pip install {install}, or {mend}")
