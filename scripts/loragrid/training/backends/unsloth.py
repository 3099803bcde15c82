"""Backend `unsloth`: its loader, kernels and trainer on a CUDA GPU; on a CPU its form for CPUs, slow and meant for tests.

unsloth changes classes of transformers, TRL and PEFT as it is imported, so it is imported before them. It also changes
settings, by device and model. Here the study's are put back where they can be, what the trainer ended up with is compared
with what was asked, and a difference is refused, or told in the record where it cannot be helped.
"""

import atexit
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, first_line
from loragrid.models.adapter_files import check_target_modules
from loragrid.models.loading import keep_unpacked, load_tokenizer
from loragrid.models.model_files import base_facts, resolve_folder
from loragrid.records.failures import out_of_memory
from loragrid.study.sections import ModelEntry
from loragrid.training.backends.interface import Base
from loragrid.training.backends.recipe import Recipe
from loragrid.training.backends.trl import TrlBackend, sft_settings
from loragrid.training.trainer_hooks import TrainerHooks

if TYPE_CHECKING:
    from datasets import Dataset

INSTALL = "pip install -r requirements-gpu.txt"
AFTER_UNSLOTH = ("transformers", "trl", "peft")
# Settings that decide what is trained; unsloth or its CPU form is known to change some of them.
DECIDING = (
    "per_device_train_batch_size gradient_accumulation_steps learning_rate lr_scheduler_type warmup_steps optim weight_decay "
    "max_grad_norm seed data_seed fp16 bf16 loss_type packing packing_strategy padding_free shuffle_dataset "
    "completion_only_loss assistant_only_loss train_sampling_strategy dataloader_drop_last average_tokens_across_devices"
).split()
PRECISIONS = {"fp16", "bf16"}


@dataclass(frozen=True)
class UnslothBase(Base):
    """A base that is loaded anew for each run: unsloth patches a model's layers for the adapters that it puts on, and
    cannot take that back. `model` is None between two runs."""

    entry: ModelEntry


class UnslothBackend(TrlBackend):
    """See `Backend` in interface.py. What is not overridden works as in the backend `trl`, on unsloth's classes."""

    name = "unsloth"

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: the run's; what unsloth compiles goes beside its checkpoints, and like them when the run is done."""
        self.compiled = folder / "checkpoints" / "compiled" if folder else None

    def load(self, entry: ModelEntry, *, recipe: Recipe) -> UnslothBase:
        """The base from the same folder as for every other stage, with the tokenizer that prepared the data."""
        import_unsloth(compiled=self.compiled, compute_dtype=recipe.compute_dtype)
        tokenizer = load_tokenizer(entry)  # refuses a folder that wants to run code or has no safetensors
        return UnslothBase(_load_model(entry, recipe), tokenizer, base_facts(entry), entry)

    def adapt(self, base: UnslothBase, *, recipe: Recipe) -> Any:
        """LoRA on the layers that the backend `trl` would take, with the same draw of A, B zero."""
        from transformers import set_seed
        from unsloth import FastLanguageModel

        model = base.model or _load_model(base.entry, recipe)
        check_target_modules(model, recipe.target_modules)
        modules = _linear_names(model) if recipe.target_modules == "all-linear" else list(recipe.target_modules)
        set_seed(recipe.seed)
        model = FastLanguageModel.get_peft_model(
            model,
            r=recipe.rank,
            target_modules=modules,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            bias="none",
            use_rslora=False,
            use_gradient_checkpointing=_checkpointing(recipe),
            random_state=recipe.seed,
        )
        config = model.peft_config[model.active_adapter]
        config.base_model_name_or_path, config.revision = base.facts.source, base.facts.commit
        return model

    def release(self, base: UnslothBase, model: Any) -> UnslothBase:
        """A base to be loaded again when it is next adapted, so that only one is in memory."""
        return replace(base, model=None)

    def trainer(
        self, model: Any, *, base: Base, recipe: Recipe, train: "Dataset", heldout: "Dataset", folder: Path
    ) -> TrainerHooks:
        """unsloth's SFTTrainer, refused if it would not train these rows with these settings."""
        trainer = super().trainer(model, base=base, recipe=recipe, train=train, heldout=heldout, folder=folder)
        forced = bool(getattr(model, "_unsloth_forced_float32", False))
        _refuse_other_settings(
            trainer.args, sft_settings(recipe, folder=folder), unless=PRECISIONS if forced else set()
        )
        _refuse_other_rows(trainer, train, packing=recipe.packing)
        trainer.notes = _notes(model, recipe, forced=forced)
        return trainer

    def settle(self, recipe: Recipe, *, model_type: str) -> tuple[Recipe, tuple[str, ...]]:
        """unsloth sees to the precision itself; its `_notes` say how."""
        return recipe, ()

    def trainer_class(self) -> type:
        """The class of `trainer`."""
        return import_unsloth_trainer()

    def config(self, recipe: Recipe, *, folder: Path) -> Any:
        """unsloth's form of the settings, and on a CPU the study's again where that form replaced them.

        There it takes another AdamW (the fused one, also for an 8-bit one) and turns packing off, fearing attention across
        samples: with this version of transformers its mask keeps them apart (tests).
        """
        from transformers.training_args import OptimizerNames

        config = super().config(recipe, folder=folder)
        if recipe.device == "cpu":
            config.optim = OptimizerNames(recipe.optimizer)
            config.packing = config.padding_free = recipe.packing
        return config


def import_unsloth(*, compiled: Path | None = None, compute_dtype: str = "fp32") -> None:
    """Import unsloth before the libraries that it changes; it reads the variables set here as it is imported."""
    if "unsloth" in sys.modules:
        return
    if early := [name for name in AFTER_UNSLOTH if name in sys.modules]:
        raise RuntimeError(f"{early[0]} was imported before unsloth, which must come first")
    if compiled is None:
        compiled = Path(tempfile.mkdtemp(prefix="loragrid-unsloth-"))
        atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    shutil.rmtree(compiled, ignore_errors=True)  # what lies there is imported as code: none but this process's own
    os.environ |= {"UNSLOTH_COMPILE_LOCATION": str(compiled.absolute()), "UNSLOTH_DISABLE_STATISTICS": "1"}
    if compute_dtype == "bf16":
        os.environ["UNSLOTH_CPU_BF16"] = "1"  # else dropped on a CPU without instructions for it
    try:
        import unsloth  # noqa: F401
    except (ImportError, NotImplementedError) as error:
        raise UserError(
            f"training.backend: unsloth is installed and cannot be imported ({first_line(error)}): "
            f"{INSTALL}, or set training.backend to trl"
        ) from error


def _load_model(entry: ModelEntry, recipe: Recipe) -> Any:
    from unsloth import FastLanguageModel

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
            use_gradient_checkpointing=_checkpointing(recipe),
            random_state=recipe.seed,
            use_exact_model_name=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if out_of_memory(error) is not None:
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"model folder {folder} cannot be loaded by unsloth ({lines[0][:300]}): check its config.json and safetensors "
            "files, or set training.backend to trl"
        ) from error
    _refuse_other_precision(model, entry.precision, dtype, folder)
    keep_unpacked(model)
    return model


def _base_dtype(precision: str, recipe: Recipe) -> Any:
    """torch dtype to load the base in: float32 for 32bit, else the one that is trained in, as unsloth demands."""
    import torch

    if precision == "32bit":
        return torch.float32
    if recipe.compute_dtype == "fp16":
        return torch.float16
    return torch.bfloat16


def _checkpointing(recipe: Recipe) -> str | bool:
    """unsloth's recomputation of activations, kept in main memory between the layers, on a GPU; none on a CPU."""
    return "unsloth" if recipe.device == "cuda" else False


def _linear_names(model: Any) -> list[str]:
    """What PEFT's "all-linear" stands for: the names of all linear layers, 4-bit ones included, but the output's."""
    import torch

    head = model.get_output_embeddings()
    linear = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and part is not head]
    return sorted({name.rpartition(".")[2] for name in linear})


def _refuse_other_precision(model: Any, precision: str, dtype: Any, folder: Path) -> None:
    """unsloth loads in another precision, with no more than a line printed, where the one asked for does not work."""
    four_bit = bool(getattr(model, "is_loaded_in_4bit", False))
    forced = getattr(model, "_unsloth_forced_float32", False)
    if four_bit != (precision == "4bit") or (model.dtype != dtype and not forced):
        found = "4bit" if four_bit else str(model.dtype).removeprefix("torch.")
        raise UserError(
            f"model folder {folder}: its precision is {precision} in the study file, and unsloth loaded it as {found}: "
            "set the model's precision to 32bit, or training.backend to trl"
        )


def _refuse_other_settings(arguments: Any, wanted: dict[str, Any], *, unless: set[str]) -> None:
    for name in DECIDING:
        found = getattr(arguments, name)
        found = getattr(found, "value", found)  # an enumeration's member
        if found != wanted[name] and name not in unless:
            raise UserError(
                f"training.backend: unsloth would train with {name} {found} where the study asks for {wanted[name]}: "
                "set training.backend to trl, or the setting to what unsloth does here"
            )


def _refuse_other_rows(trainer: TrainerHooks, given: "Dataset", *, packing: bool) -> None:
    """The trainer must hold the very tokens and labels that were prepared, and the collator that keeps samples apart."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collator = trainer.data_collator
    if not isinstance(collator, DataCollatorForLanguageModeling) or collator.padding_free != packing:
        raise RuntimeError(f"unsloth put {type(collator).__name__} in the place of TRL's collator")
    if not packing:
        columns = ["input_ids", "labels"]
        held, wanted = (rows.with_format("arrow")[:].select(columns) for rows in (trainer.train_dataset, given))
        if not held.equals(wanted):
            raise RuntimeError("unsloth changed the training rows")


def _notes(model: Any, recipe: Recipe, *, forced: bool) -> tuple[str, ...]:
    """What a reader of the record must know."""
    weights = str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")
    in_4bit = ", layers in 4 bits" if getattr(model, "is_loaded_in_4bit", False) else ""
    notes = [f"unsloth: weights in {weights}{in_4bit}, trained in {'fp32' if forced else recipe.compute_dtype}"]
    if forced:
        notes.append(
            f"unsloth trains a {model.config.model_type} in float32 where {recipe.compute_dtype} was asked for, because "
            "its activations overflow float16"
        )
    if recipe.device == "cpu":
        notes.append("unsloth's CPU form: TRL's trainer, and for some architectures a loss computed in chunks")
    return tuple(notes)


@cache
def import_unsloth_trainer() -> type:
    """The trainer's class, made here because its parent takes seconds to import. unsloth must be imported already."""
    import torch
    from transformers import PrinterCallback, Trainer
    from trl import SFTTrainer

    class UnslothTrainer(TrainerHooks, SFTTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.remove_callback(PrinterCallback)

        def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **named: Any) -> Any:
            # unsloth's own in training; without gradients TRL's would take entropies over the vocabulary, unused here.
            if torch.is_grad_enabled():
                return super().compute_loss(model, inputs, return_outputs=return_outputs, **named)
            inputs["use_cache"] = False
            return Trainer.compute_loss(self, model, inputs, return_outputs=return_outputs, **named)

    return UnslothTrainer
