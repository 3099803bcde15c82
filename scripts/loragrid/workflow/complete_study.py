"""The complete study file of a run of the workflow, with every default written out."""

from pathlib import Path
from typing import Any

import yaml

from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import write_text
from loragrid.study.study_file import Study

HEAD = """# The complete study file as the workflow last ran it, with every default. It is written at each start and
# never read: edit {name} instead. Copied beside it, this file makes the same runs.
"""


def write_complete_study(study: Study, results: Path) -> Path:
    """Write `results`/study.yaml and return its path."""
    path = results / "study.yaml"
    write_text(path, complete_text(study))
    return path


def complete_text(study: Study) -> str:
    """The complete study file as YAML; loading it gives the same cells."""
    text = yaml.safe_dump(_portable(study.yaml), sort_keys=False, allow_unicode=True, width=100)
    return HEAD.format(name=study.path.name) + text


def _portable(value: Any) -> Any:
    """`value` with paths in the project relative to it, so that another checkout can read them."""
    if isinstance(value, dict):
        return {_portable(key): _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, str) and value.startswith(f"{ROOT}/"):
        return value.removeprefix(f"{ROOT}/")
    return value
