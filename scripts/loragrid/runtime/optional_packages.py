"""Packages that some settings need and `make study` does not install: missed before any work, never replaced by another.

Only refuses, so that `loragrid.runtime.code_digest` leaves this module out of every stage's code.
"""

from importlib.util import find_spec
from typing import Any

from loragrid.errors import UserError

ON_GPU = "-r requirements-gpu.txt"


def check_packages(training: dict[str, Any], entry: dict[str, Any]) -> None:
    """Refuse to begin when a package that `training` or the model entry asks for is not installed: a one-line `UserError`."""
    optimizer, tracker = training["optimizer"], training["report_to"]
    if training["backend"] == "unsloth":
        require("unsloth", "training.backend", install=ON_GPU, mend="set training.backend to trl")
    if "8bit" in optimizer:
        require("bitsandbytes", f"training.optimizer: {optimizer}", install=ON_GPU, mend="set it to adamw_torch")
    if tracker != "none":
        require(tracker, "training.report_to", install=tracker, mend="set it to none")
    check_precision(entry)


def check_precision(entry: dict[str, Any]) -> None:
    """Refuse a 4-bit base without the package that loads it."""
    if entry["precision"] == "4bit":
        require("bitsandbytes", "a model's precision 4bit", install=ON_GPU, mend="set it to 16bit")


def require(package: str, setting: str, *, install: str, mend: str) -> None:
    """Refuse `setting` where `package` is not installed, which costs no import. `install`: what pip is to be given."""
    if find_spec(package) is None:
        raise UserError(f"{setting} needs {package}, which is not installed: pip install {install}, or {mend}")
