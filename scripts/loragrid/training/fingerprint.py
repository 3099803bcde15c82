"""All that decides the bits of an adapter, so that training goes on only from what it would itself have made."""

from typing import Any

from loragrid.models.model_files import BaseFacts
from loragrid.runtime import provenance
from loragrid.runtime.code_digest import code_digest
from loragrid.study.grid import Cell
from loragrid.training.backends.recipe import Recipe

# Libraries whose version can change the bits of an adapter: a checkpoint made by another one is not gone on from.
DECIDING = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "unsloth", "unsloth_zoo")


def fingerprint(
    *, cell: Cell, recipe: Recipe, backend: str, card: dict[str, Any], base: BaseFacts, steps: int
) -> dict[str, Any]:
    """The fingerprint of a run on this machine, flat, so that what differs between two can be named."""
    versions = provenance.versions()
    return (
        {"run": cell.run, "backend": backend, "planned_steps": steps, "code": code_digest("train")}
        | {"device": recipe.device, "compute_dtype": recipe.compute_dtype, "base_sha256": base.sha256}
        | {"data": card["fingerprint"], "heldout_data": card["heldout_fingerprint"]}
        | {f"{package} version": versions.get(package) for package in DECIDING}
        | _flat(cell.identity, "settings")
    )


def _flat(value: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}") if isinstance(item, dict) else {f"{prefix}.{key}": item}
    return flat
