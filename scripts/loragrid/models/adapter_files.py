"""The finished adapter's folder: PEFT form, whole or not there, the same bytes for the same weights."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.runtime.atomic_files import fsync_folder, write_json


def save_adapter(model: Any, folder: Path) -> Path:
    """Save a PEFT model's adapter under a temporary name, make it durable and rename it to `folder`."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_peft_files(model, partial)
    sync_files(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(partial, folder)
    fsync_folder(folder.parent)
    return folder


def write_peft_files(model: Any, folder: Path) -> None:
    """adapter_model.safetensors and adapter_config.json, and nothing else.

    The embeddings are frozen and never saved (PEFT's "auto" asks the hub about them). PEFT's model card is a form to
    fill in. Its configuration lists sets in an order that changes from process to process: sorted here.
    """
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    # safetensors writes through a temporary file that only its owner may read.
    shutil.copymode(folder / "adapter_config.json", folder / "adapter_model.safetensors")
    config_file = folder / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    modules = config["target_modules"]
    write_json(config_file, config | {"target_modules": sorted(modules) if isinstance(modules, list) else modules})


def check_target_modules(model: Any, asked: str | Sequence[str]) -> None:
    """Refuse a name of `training.target_modules` that no layer of the model bears: PEFT leaves it out in silence, or raises
    when it is the only one. A layer that takes an adapter has a matrix of weights, and is named in full or by its end."""
    if isinstance(asked, str):
        return
    weights = ((name, getattr(part, "weight", None)) for name, part in model.named_modules())
    layers = [name for name, weight in weights if weight is not None and weight.dim() == 2]
    for name in asked:
        if not any(layer == name or layer.endswith(f".{name}") for layer in layers):
            known = ", ".join(sorted({layer.rpartition(".")[2] for layer in layers}))
            raise UserError(
                f"training.target_modules: the model has no layer {name!r}: take some of {known}, or all-linear"
            )


def sync_files(folder: Path) -> None:
    """Make the content of a folder's files survive a power cut."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
