"""Adopted adapters: trained elsewhere, and scored and compared beside the runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.runtime.atomic_files import sha256_json
from loragrid.study.grid import Cell, base_case_on
from loragrid.study.identity import file_content
from loragrid.study.sections import AdoptedAdapter

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """An adopted adapter as a subject of scoring.

    `cell` is the base case on the adapter's base: it names the base and the data set that the
    subject is scored with, and is no run.
    """

    subject: str
    key: str
    entry: AdoptedAdapter
    cell: Cell


def adopted_subjects(settings: Mapping[str, Any]) -> dict[str, Adopted]:
    """Subject id → adopted adapter, of a complete study file.

    The id ends in a digest of the base and of the adapter: of the files of a local one, of the id
    and revision of one from the hub. Raises `UserError` for a local folder without the two files.
    """
    found = {}
    for key, values in settings["adopt"].items():
        entry = AdoptedAdapter.read(values)
        cell = base_case_on(settings, entry.model)
        digest = sha256_json([_origin(key, entry), cell.base])[:8]
        subject = f"adopted-{key}-{digest}"
        found[subject] = Adopted(subject=subject, key=key, entry=entry, cell=cell)
    return found


def _origin(key: str, entry: AdoptedAdapter) -> Any:
    if entry.path is None:
        return [entry.hub, entry.revision]
    files = [Path(entry.path) / name for name in ADAPTER_FILES]
    for file in files:
        if not file.is_file():
            problem = f"no {file.name} in the folder ({entry.path})"
            fix = "give a PEFT adapter in safetensors; pickled weights are never loaded"
            raise UserError(f"adopt.{key}: {problem}. Fix: {fix}.")
    return [file_content(str(file)) for file in files]
