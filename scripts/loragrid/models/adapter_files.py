"""The folders of trained weights: an adapter in PEFT format, or a whole model.

Complete or absent, and equal bytes for equal weights.
"""

import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

from loragrid.models.adapter_card import CARD, adapter_card
from loragrid.models.model_files import weights_sha256
from loragrid.runtime.atomic_files import atomic_folder, read_json, write_json, write_text
from loragrid.runtime.file_digests import session_sha256

ADAPTER, MODEL = "adapter", "model"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODEL_WEIGHTS = "model.safetensors"
# Weights kept at a share of the budget are in FOLDER/along/SHARE/.
ALONG = "along"


def trained_folder(run_folder: Path) -> Path:
    """The folder of a run's trained weights: `model` of a run of all weights, else `adapter`."""
    model = run_folder / MODEL
    return model if model.is_dir() else run_folder / ADAPTER


def along_folder(run_folder: Path, share: float) -> Path:
    """The folder for the weights that a run had after that share of its budget."""
    return run_folder / ALONG / f"{share:g}"


def trained_sha256(folder: Path) -> str:
    """SHA-256 of the weights in a `trained_folder`: of the adapter's file, or of all of a model's."""
    adapter = folder / ADAPTER_WEIGHTS
    return session_sha256(adapter) if adapter.exists() else weights_sha256(folder)


def save_trained(model: Any, run_folder: Path, *, tokenizer: Any) -> Path:
    """Save trained weights in `run_folder`, replacing older ones; returns their folder.

    An adapter fits the original base, even if its method changed the base's weights, and gets a card. A
    whole model gets its tokenizer.
    """
    folder = run_folder / (ADAPTER if is_adapter(model) else MODEL)
    with atomic_folder(folder) as unfinished:
        if not is_adapter(model):
            _write_model(model, unfinished, tokenizer=tokenizer)
            return folder
        if hasattr(model, "start_weights"):
            _write_converted(model, unfinished)
        else:
            write_adapter(model, unfinished)
        four_bits = getattr(model.get_base_model(), "is_loaded_in_4bit", False)
        config = read_json(unfinished / "adapter_config.json")
        write_text(unfinished / CARD, adapter_card(config, four_bits=four_bits))
    return folder


def write_resumable(model: Any, folder: Path) -> None:
    """Write a model's trained weights as they are, for a checkpoint."""
    if is_adapter(model):
        write_adapter(model, folder)
        return
    from safetensors.torch import save_model

    # A single file of any size, in which tied weights are stored once.
    save_model(model, str(folder / MODEL_WEIGHTS), metadata={"format": "pt"})


def write_adapter(model: Any, folder: Path, **options: Any) -> None:
    """Write adapter_model.safetensors and adapter_config.json, and nothing else.

    `options` are passed to PEFT's `save_pretrained`.
    """
    # The embeddings are frozen. PEFT's default, "auto", would ask the hub whether they changed.
    model.save_pretrained(folder, save_embedding_layers=False, **options)
    # PEFT's model card is an empty form.
    (folder / CARD).unlink(missing_ok=True)
    # safetensors writes through a temporary file that only its owner may read.
    shutil.copymode(folder / "adapter_config.json", folder / ADAPTER_WEIGHTS)
    config_file = folder / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    # PEFT writes the modules in set order, which changes from process to process.
    if isinstance(config["target_modules"], list):
        config["target_modules"] = sorted(config["target_modules"])
    write_json(config_file, config)


def _write_converted(model: Any, folder: Path) -> None:
    """Write PEFT's conversion of an adapter whose start was taken out of the base's weights.

    With s = alpha / rank, the base W became W - s·B₀A₀; W - s·B₀A₀ + s·BA is W and an adapter of
    twice the rank.
    """
    import torch
    from safetensors.torch import save_file

    # PEFT loads the start as a second adapter, whose initialisation draws random numbers: a run
    # must not depend on when its weights are saved.
    with tempfile.TemporaryDirectory() as place, torch.random.fork_rng(), warnings.catch_warnings():
        # PEFT warns that two adapters on a changed base do not fit together; here the second is only
        # read for its values.
        warnings.simplefilter("ignore")
        start = Path(place) / "start"
        start.mkdir()
        save_file(model.start_weights, start / ADAPTER_WEIGHTS)
        write_adapter(model, folder, path_initial_model_for_weight_conversion=str(start))


def _write_model(model: Any, folder: Path, *, tokenizer: Any) -> None:
    """Write a model with the base's configuration, and its tokenizer, as transformers reads them."""
    model.save_pretrained(folder)
    config, generation = model.base_configs
    config.dtype = model.dtype
    config.save_pretrained(folder)
    if generation is not None:
        generation.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", file)


def is_adapter(model: Any) -> bool:
    """Whether a model is a base with an adapter; else all of its weights are trained."""
    from peft import PeftModel

    return isinstance(model, PeftModel)
