"""The finished adapter's folder: PEFT format, complete or absent, equal bytes for equal weights."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.runtime.atomic_files import atomic_folder, write_json


def save_adapter(model: Any, folder: Path) -> Path:
    """Save a PEFT model's adapter to `folder`, replacing an older one; returns `folder`."""
    with atomic_folder(folder) as unfinished:
        write_peft_files(model, unfinished)
    return folder


def write_peft_files(model: Any, folder: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json, and nothing else."""
    # The embeddings are frozen. PEFT's default, "auto", would ask the hub whether they changed.
    model.save_pretrained(folder, save_embedding_layers=False)
    # PEFT's model card is an empty form.
    (folder / "README.md").unlink(missing_ok=True)
    # safetensors writes through a temporary file that only its owner may read.
    shutil.copymode(folder / "adapter_config.json", folder / "adapter_model.safetensors")
    config_file = folder / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    # PEFT writes the modules in set order, which changes from process to process.
    if isinstance(config["target_modules"], list):
        config["target_modules"] = sorted(config["target_modules"])
    write_json(config_file, config)


def check_target_modules(model: Any, target_modules: str | Sequence[str]) -> None:
    """Raise `UserError` for a name in `training.target_modules` that matches no layer of the model.

    PEFT ignores such a name if another one matches. As in PEFT, a name matches a layer's full name
    or its end; only layers with a weight matrix can have an adapter.
    """
    if isinstance(target_modules, str):
        return
    weights = ((name, getattr(module, "weight", None)) for name, module in model.named_modules())
    layers = [name for name, weight in weights if weight is not None and weight.dim() == 2]
    for target in target_modules:
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers):
            known = ", ".join(sorted({layer.rpartition(".")[2] for layer in layers}))
            raise UserError(
                f"training.target_modules: the model has no layer {target!r}. "
                f"Fix: choose from {known}, or use all-linear."
            )
