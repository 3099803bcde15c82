"""Importing unsloth, which must come before the libraries that it changes, and loading a base."""

import atexit
import gc
import os
import shutil
import sys
from typing import Any

from loragrid.errors import UserError, first_line
from loragrid.models.loading import keep_unpacked
from loragrid.models.model_files import resolve_folder
from loragrid.records.failures import out_of_memory
from loragrid.runtime.delegation.residency import release_all
from loragrid.runtime.local_folders import make_local_folder
from loragrid.study.sections import ModelEntry
from loragrid.training.backends.recipe import Recipe
from loragrid.training.backends.unsloth_checks import refuse_other_precision

INSTALL = "pip install -r requirements-gpu.txt"
# Libraries that unsloth changes when it is imported.
AFTER_UNSLOTH = ("transformers", "trl", "peft")


def import_unsloth(*, compute_dtype: str = "fp32") -> None:
    """Import unsloth before the libraries that it changes.

    Raises `UserError` if it cannot be imported, `RuntimeError` if one of those came first.
    """
    if "unsloth" in sys.modules:
        return
    if early := [name for name in AFTER_UNSLOTH if name in sys.modules]:
        raise RuntimeError(f"{early[0]} was imported before unsloth, which must come first")
    # unsloth reads these variables when it is imported. What it compiles is imported as code, so the folder must be
    # this process's own; hundreds of small files on a mounted drive would take minutes.
    compiled = make_local_folder("loragrid-unsloth-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ["UNSLOTH_COMPILE_LOCATION"] = str(compiled)
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"
    # Compiling every block takes 25 to 100 s a process, longer than a short run can win back; who sets it keeps it.
    os.environ.setdefault("UNSLOTH_BLOCK_COMPILE", "0")
    if compute_dtype == "bf16":
        # Otherwise it drops bf16 on a CPU without instructions for it.
        os.environ["UNSLOTH_CPU_BF16"] = "1"
    # Hundreds of thousands of objects that stay: looking for garbage among them takes a tenth of the import, and
    # again each time that unsloth collects garbage, 16 times for a base and its adapter.
    gc.disable()
    try:
        import unsloth  # noqa: F401
    except Exception as error:
        # By the missing driver, card or library it raises errors of any class.
        raise UserError(
            f"backend: unsloth is installed but cannot be imported ({first_line(error)}). "
            f"Fix: {INSTALL}, or set backend to trl."
        ) from error
    finally:
        gc.enable()
    gc.freeze()


def load_unsloth_model(entry: ModelEntry, recipe: Recipe) -> Any:
    """The base of a model entry; raises `UserError` for a broken folder or another precision."""
    from unsloth import FastLanguageModel

    release_all()
    folder, _ = resolve_folder(entry)
    dtype = _base_dtype(entry.precision, recipe)
    try:
        model, _ = FastLanguageModel.from_pretrained(
            str(folder),
            max_seq_length=recipe.max_length_tokens,
            dtype=dtype,
            load_in_4bit=entry.precision == "4bit",
            load_in_8bit=False,
            load_in_16bit=entry.precision == "16bit",
            full_finetuning=False,
            use_gradient_checkpointing=checkpointing(recipe),
            random_state=recipe.seed,
            # Otherwise unsloth may load its own quantised upload of a model of that name.
            use_exact_model_name=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        # Too little memory is not a mistake in the folder.
        if out_of_memory(error) is not None:
            raise
        raise UserError(
            f"model folder {folder}: unsloth cannot load it ({first_line(error)}). Fix: check its "
            "config.json and safetensors files, or set backend to trl."
        ) from error
    refuse_other_precision(model, entry.precision, dtype, folder)
    keep_unpacked(model)
    return model


def _base_dtype(precision: str, recipe: Recipe) -> Any:
    """float32 for 32bit; otherwise the type that is trained in, which unsloth requires."""
    import torch

    if precision == "32bit":
        return torch.float32
    if recipe.compute_dtype == "fp16":
        return torch.float16
    return torch.bfloat16


def checkpointing(recipe: Recipe) -> str | bool:
    """unsloth's gradient checkpointing where activations are recomputed."""
    # "unsloth" recomputes activations, and keeps those between the layers in main memory.
    return "unsloth" if recipe.checkpointing else False
