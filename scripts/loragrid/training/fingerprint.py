"""Everything that determines the bits of an adapter, so that only the same training is resumed."""

from typing import Any

from loragrid.models.model_files import BaseFacts
from loragrid.runtime import provenance
from loragrid.runtime.code_digest import code_digest
from loragrid.study.grid import Cell
from loragrid.training.backends.recipe import Recipe

# Fields that `departures` adds; training/step_layout.py reads them from a checkpoint.
ROWS_PER_PASS, CHECKPOINTING = "rows per pass (training.fold_batches)", "recomputing of activations"
LIGER = "version of liger's kernels (training.liger_kernels)"
# In a published study the same settings moved by a median of 1.9 accuracy points between versions
# of such libraries: an adapter trained with two versions belongs to neither.
LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "unsloth",
    "unsloth_zoo",
)


def fingerprint(
    *,
    cell: Cell,
    recipe: Recipe,
    backend: str,
    card: dict[str, Any],
    base: BaseFacts,
    steps: int,
) -> dict[str, Any]:
    """The fingerprint of a run on this machine; flat, so that an error can name what differs."""
    versions = provenance.versions()
    return {
        "run": cell.run,
        "backend": backend,
        # The learning rate schedule depends on the number of updates.
        "planned_steps": steps,
        "code": code_digest("train"),
        # `auto` in the study file means another device and precision on another machine.
        "device": recipe.device,
        "compute_dtype": recipe.compute_dtype,
        "base_sha256": base.sha256,
        "data": card["fingerprint"],
        "heldout_data": card["heldout_fingerprint"],
        **departures(recipe),
        **{f"{library} version": versions.get(library) for library in LIBRARIES},
        **_flat(cell.identity, "settings"),
    }


def departures(recipe: Recipe) -> dict[str, Any]:
    """How the updates run where that is not the usual way: rounding and dropout depend on it."""
    found: dict[str, Any] = {}
    # Several GPUs divide a batch, which is theirs by another field.
    if recipe.per_device > recipe.batch[0]:
        found[ROWS_PER_PASS] = recipe.per_device
    if recipe.checkpointing != (recipe.device == "cuda"):
        found[CHECKPOINTING] = recipe.checkpointing
    if recipe.liger:
        found[LIGER] = provenance.versions().get("liger_kernel")
    return found


def _flat(value: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}.{key}")
        else:
            flat[f"{prefix}.{key}"] = item
    return flat
