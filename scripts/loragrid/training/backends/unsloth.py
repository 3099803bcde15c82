"""Backend `unsloth`: its loader, kernels and trainer on a CUDA GPU.

On a CPU it uses unsloth's version for CPUs, which is slow and only for tests. unsloth changes
classes of transformers, TRL and PEFT when it is imported, so it is imported before them. It also
changes settings. Here the study's settings are restored where possible; a difference that remains
is refused (unsloth_checks.py), or noted in the record where it cannot be avoided.
"""

from collections.abc import Generator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.data.training_data import TrainingData
from loragrid.models.loading import load_tokenizer
from loragrid.models.model_files import base_facts
from loragrid.models.passes.row_losses import RowLoss
from loragrid.models.target_modules import adapted_layers, language_model
from loragrid.study.sections import ModelEntry
from loragrid.training.backends.interface import Base
from loragrid.training.backends.recipe import Recipe
from loragrid.training.backends.sft_settings import sft_settings
from loragrid.training.backends.trl import TrlBackend, name_base
from loragrid.training.backends.unsloth_checks import (
    refuse_other_layers,
    refuse_other_rows,
    refuse_other_settings,
)
from loragrid.training.backends.unsloth_heldout import measure_batches
from loragrid.training.backends.unsloth_loading import (
    checkpointing,
    import_unsloth,
    load_unsloth_model,
)
from loragrid.training.trainer_hooks import TrainerHooks

if TYPE_CHECKING:
    from datasets import Dataset

PRECISIONS = {"fp16", "bf16"}
# unsloth's code for Gemma 3's attention, which takes torch's where the configuration says "eager", as on a T4.
OWN_GEMMA3 = "unsloth_zoo.temporary_patches.gemma"


class UnslothBackend(TrlBackend):
    """See `Backend` in interface.py; the rest works as in `TrlBackend`, on unsloth's classes."""

    name = "unsloth"

    def load(self, entry: ModelEntry, *, recipe: Recipe) -> Base:
        """The base from the same folder as in every stage, and the data's tokenizer."""
        import_unsloth(compute_dtype=recipe.compute_dtype)
        # First: it refuses a folder that would run code or has no safetensors.
        tokenizer = load_tokenizer(entry)
        return Base(load_unsloth_model(entry, recipe), tokenizer, base_facts(entry), entry)

    def adapt(self, base: Base, *, recipe: Recipe) -> Any:
        """LoRA on the layers that `TrlBackend` would adapt, with the same draw of A; B zero."""
        from transformers import set_seed
        from unsloth import FastLanguageModel

        model = base.model or load_unsloth_model(base.entry, recipe)
        layers = adapted_layers(model, recipe.target_modules)
        set_seed(recipe.seed)
        model = FastLanguageModel.get_peft_model(
            model,
            r=recipe.rank,
            # unsloth knows neither the names of groups nor full names of layers.
            target_modules=sorted({name.rpartition(".")[2] for name in layers}),
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            bias="none",
            use_rslora=recipe.method == "rslora",
            use_gradient_checkpointing=checkpointing(recipe),
            random_state=recipe.seed,
        )
        refuse_other_layers(model, layers)
        name_base(model, base)
        return model

    def release(self, base: Base, model: Any) -> Base:
        """A base without a model: `adapt` loads it again, so that only one is in memory.

        unsloth patches a model's layers for its adapters and cannot undo that.
        """
        return replace(base, model=None)

    def trainer(
        self,
        model: Any,
        *,
        base: Base,
        recipe: Recipe,
        data: TrainingData,
        folder: Path,
    ) -> TrainerHooks:
        """unsloth's SFTTrainer; refused if it would not train these rows with these settings."""
        trainer = super().trainer(model, base=base, recipe=recipe, data=data, folder=folder)
        forced_float32 = self.computes_in_float32(model)
        wanted = sft_settings(recipe, folder=folder)
        unless = PRECISIONS if forced_float32 else set()
        if not recipe.packing:
            # Not a setting of the study: samples side by side are the same batch without its padding, and unsloth
            # pads the models that cannot take them so.
            unless = unless | {"padding_free"}
        refuse_other_settings(trainer.args, wanted, unless=unless)
        refuse_other_rows(trainer, data.train, packing=recipe.packing)
        trainer.notes = _notes(model, recipe, forced_float32=forced_float32)
        trainer.attention = attention_in_use(model, padding_free=trainer.data_collator.padding_free)
        return trainer

    def folds(self, network: Any, recipe: Recipe) -> bool:
        """True: on a GPU unsloth pads no rows, and it weighs tokens."""
        return True

    def loss(self, network: Any, recipe: Recipe) -> tuple[str, tuple[str, ...]]:
        """TRL's whole loss by name; unsloth computes its own, in parts."""
        return "nll", ()

    def computes_in_float32(self, network: Any) -> bool:
        """Whether unsloth found that the model's family overflows float16."""
        return bool(getattr(network, "_unsloth_forced_float32", False))

    def rows(self, rows: "Dataset", recipe: Recipe) -> "Dataset":
        """The rows, with unsloth's own mark that they are cut already, without which it pads them."""
        rows = super().rows(rows, recipe)
        rows._unsloth_truncated_to = recipe.max_length_tokens
        return rows

    def settle(self, recipe: Recipe, *, model_type: str) -> tuple[Recipe, tuple[str, ...]]:
        """The recipe as it is: unsloth chooses the precision itself, and `_notes` says which."""
        return recipe, ()

    def trainer_class(self) -> type:
        """The class of `trainer`."""
        return import_unsloth_trainer()

    def config(self, recipe: Recipe, *, folder: Path) -> Any:
        """unsloth's version of the settings, the study's restored on a CPU."""
        from transformers.training_args import OptimizerNames

        config = super().config(recipe, folder=folder)
        if recipe.device == "cpu":
            # unsloth takes a fused AdamW there, even for an 8-bit one, and switches packing off
            # because attention may cross samples. With this version of transformers the mask keeps
            # them apart (unsloth_cases.py).
            config.optim = OptimizerNames(recipe.optimizer)
            config.packing = config.padding_free = recipe.packing
        else:
            # Its kernels take samples side by side: no token is spent on padding, and no block is compiled for it.
            config.padding_free = True
        return config


def _notes(model: Any, recipe: Recipe, *, forced_float32: bool) -> tuple[str, ...]:
    """Precisions, and where unsloth departs from the study, for the record."""
    weights = str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")
    if getattr(model, "is_loaded_in_4bit", False):
        weights += ", layers in 4 bits"
    trained = "fp32" if forced_float32 else recipe.compute_dtype
    notes = [f"unsloth: weights in {weights}, trained in {trained}"]
    if forced_float32:
        notes.append(
            f"unsloth trains a {model.config.model_type} in float32 where {recipe.compute_dtype} "
            "was asked for, because its activations overflow float16"
        )
    if recipe.device == "cpu":
        trained_by = "TRL's trainer, and for some architectures a loss computed in chunks"
        notes.append(f"unsloth's CPU form: {trained_by}")
    return tuple(notes)


def attention_in_use(model: Any, *, padding_free: bool) -> str:
    """Name of the attention that training takes: unsloth's choice of kernels, or that of the model's own code."""
    _, decoder = language_model(model.get_base_model())
    # Some layers of a hybrid model have none.
    layers = [layer for layer in getattr(decoder, "layers", ()) if hasattr(layer, "self_attn")]
    code = type(layers[0].self_attn).forward.__module__ if layers else ""
    configured = str(model.config.get_text_config()._attn_implementation)
    if code == OWN_GEMMA3 and configured != "flex_attention":
        return "unsloth, sdpa"
    if not code.startswith("unsloth."):
        return configured
    from unsloth.utils.attention_dispatch import select_attention_backend

    return f"unsloth, {select_attention_backend(use_varlen=padding_free)}"


@cache
def import_unsloth_trainer() -> type:
    """The trainer's class; made on first use, after unsloth was imported."""
    import torch
    from transformers import PrinterCallback, Trainer
    from trl import SFTTrainer

    class UnslothTrainer(TrainerHooks, SFTTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.remove_callback(PrinterCallback)

        def measure_heldout(self) -> Generator[dict[int, RowLoss]]:
            return measure_batches(self, self.heldout, pad_token_id=self.processing_class.pad_token_id)

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            **named: Any,
        ) -> Any:
            if torch.is_grad_enabled():
                return super().compute_loss(model, inputs, return_outputs=return_outputs, **named)
            # Without gradients unsloth leaves it to TRL, which would compute entropies over the
            # vocabulary that nothing uses.
            inputs["use_cache"] = False
            return Trainer.compute_loss(self, model, inputs, return_outputs=return_outputs, **named)

    return UnslothTrainer
