"""Backend `trl`: TRL's SFTTrainer with PEFT's adapters or all weights, on a CPU or a CUDA GPU."""

from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.data.training_data import TrainingData
from loragrid.models.adapter_card import named_base
from loragrid.models.adapter_files import is_adapter
from loragrid.models.base_cache import fresh_base, held_base
from loragrid.models.batch_sizes import TRL_LOSS
from loragrid.models.float16_range import overflows_float16
from loragrid.models.loading import load_base, load_tokenizer
from loragrid.models.model_files import base_facts, resolve_folder
from loragrid.models.passes.padding_free import enable_padding_free, is_padding_free
from loragrid.models.passes.row_losses import network_of
from loragrid.study.batch_shares import StepLayout
from loragrid.study.methods import METHODS
from loragrid.study.sections import ModelEntry
from loragrid.training.backends.adapters import TAKE_FROM_BASE, attach, released
from loragrid.training.backends.chunked_loss import supports_chunks, unpatch
from loragrid.training.backends.interface import Base
from loragrid.training.backends.liger_kernels import LigerKernels
from loragrid.training.backends.recipe import Recipe
from loragrid.training.backends.sft_settings import sft_settings
from loragrid.training.backends.trl_trainer import import_trainer
from loragrid.training.float16_check import Float16Check
from loragrid.training.trainer_hooks import TrainerHooks

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ["input_ids", "labels"]


class TrlBackend:
    """See `loragrid.training.backends.interface.Backend`."""

    name = "trl"

    def load(self, entry: ModelEntry, *, recipe: Recipe) -> Base:
        """The base in its precision, frozen; a 4-bit base has its norms in float32."""
        return Base(_load_frozen(entry, recipe), load_tokenizer(entry), base_facts(entry), entry)

    def adapt(self, base: Base, *, recipe: Recipe) -> Any:
        """The base as the recipe's method trains it; an adapter's matrices are drawn from the seed."""
        from transformers import set_seed

        model = base.model
        if model is None:
            model = _load_frozen(base.entry, recipe)
        # Right before the adapter is drawn: loading the base may have drawn numbers, or not.
        set_seed(recipe.seed)
        model = attach(model, recipe, folder=resolve_folder(base.entry)[0])
        name_base(model, base)
        return model

    def release(self, base: Base, model: Any) -> Base:
        """The base without the adapter: the layers that were loaded, or None to load them again."""
        unpatch(network_of(model))
        return replace(base, model=released(model))

    def trainer(
        self,
        model: Any,
        *,
        base: Base,
        recipe: Recipe,
        data: TrainingData,
        folder: Path,
    ) -> TrainerHooks:
        """An SFTTrainer on rows that are already tokenised, labelled and cut."""
        network = network_of(model)
        if recipe.per_device > recipe.batch[0] and not self.folds(network, recipe):
            rows, passes = recipe.batch
            recipe = replace(recipe, per_device=rows, accumulation=passes)
        recipe, notes = self.settle(recipe, model_type=network.config.model_type)
        # Before the trainer casts them.
        notes += precision_notes(network, recipe)
        if not recipe.checkpointing and network.is_gradient_checkpointing:
            # An earlier run on this base switched it on.
            network.gradient_checkpointing_disable()
        config = self.config(recipe, folder=folder)
        config.loss_type, more = self.loss(network, recipe)
        trainer = self.trainer_class()(
            model=model,
            args=config,
            train_dataset=self.rows(data.train, recipe),
            processing_class=base.tokenizer,
        )
        # TRL casts the adapters of a 4-bit base to bfloat16, and all weights of a 16-bit base are in
        # it. A GradScaler (fp16, a T4) cannot unscale those, and small updates are lost in them.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if is_padding_free(network):
            # Set here and not in `sft_settings`: only the loaded model shows that it is supported.
            trainer.per_sample = trainer.data_collator.padding_free = True
        if recipe.liger:
            trainer.kernels = LigerKernels(network, compute_dtype=recipe.compute_dtype)
            more += (trainer.kernels.note,)
        columns = data.heldout.select_columns(COLUMNS)[:]
        trainer.heldout = list(zip(columns["input_ids"], columns["labels"], strict=True))
        trainer.notes, trainer.warmup = notes + more, recipe.warmup
        trainer.layout = StepLayout(recipe.per_device, recipe.accumulation, recipe.checkpointing)
        trainer.learning_rate_ratio = recipe.learning_rate_ratio
        trainer.attention = str(network.config.get_text_config()._attn_implementation)
        if recipe.compute_dtype == "fp16" and not self.computes_in_float32(network):
            trainer.float16_check = Float16Check(network, model_type=network.config.model_type)
        return trainer

    def folds(self, network: Any, recipe: Recipe) -> bool:
        """Whether more rows a pass than the study file writes cost nothing and change no gradient.

        Padded rows would be padded to a longer one. A model that does not take the token count of the whole update
        gives each pass the same weight, whatever its tokens.
        """
        weighs_tokens = any(
            parameter.kind == Parameter.VAR_KEYWORD for parameter in signature(network.forward).parameters.values()
        )
        return weighs_tokens and (recipe.packing or is_padding_free(network))

    def settle(self, recipe: Recipe, *, model_type: str) -> tuple[Recipe, tuple[str, ...]]:
        """The recipe that this model can be trained with, and a note for each departure from it."""
        return settled_dtype(recipe, model_type=model_type)

    def loss(self, network: Any, recipe: Recipe) -> tuple[str, tuple[str, ...]]:
        """TRL's name of the loss to train this network with, and a note if the model does not support the usual one."""
        wanted = TRL_LOSS[recipe.device]
        # liger's loss takes the place of transformers' own. The weights of a split base are not on a device yet, on
        # which TRL's could be tried.
        if recipe.split or recipe.liger:
            return "nll", ()
        if wanted != "chunked_nll" or supports_chunks(network):
            return wanted, ()
        kind = network.config.model_type
        return "nll", (f"all logits of a batch at once: TRL's chunked loss does not compute those of this {kind}",)

    def computes_in_float32(self, network: Any) -> bool:
        """Whether this backend computes the network in float32 whatever the recipe says."""
        return False

    def rows(self, rows: "Dataset", recipe: Recipe) -> "Dataset":
        """The rows that the trainer is given."""
        return training_rows(rows, recipe)

    def trainer_class(self) -> type:
        """The class of `trainer`."""
        return import_trainer()

    def config(self, recipe: Recipe, *, folder: Path) -> Any:
        """The settings of `sft_settings` as TRL's configuration."""
        from trl import SFTConfig

        return SFTConfig(**sft_settings(recipe, folder=folder))


def _load_frozen(entry: ModelEntry, recipe: Recipe) -> Any:
    if recipe.split:
        model = load_base(entry, device=recipe.device, place=False)
    elif METHODS[recipe.method].keeps_base:
        model = held_base(entry, device=recipe.device)
    else:
        model = fresh_base(entry, device=recipe.device)
    # A base that is to be split has no device yet on which its attention could be tried.
    if recipe.device == "cpu" or not recipe.split:
        settled, _ = settled_dtype(recipe, model_type=model.config.model_type)
        enable_padding_free(model, compute_dtype=settled.compute_dtype)
    if entry.precision == "4bit":
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model.requires_grad_(False)
    return model


def settled_dtype(recipe: Recipe, *, model_type: str) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe in float32 if this model overflows its float16, with a note for the record."""
    if recipe.compute_dtype != "fp16" or not overflows_float16(model_type):
        return recipe, ()
    reason = f"the activations of a {model_type} overflow float16"
    note = f"trained in float32 where fp16 was asked for: {reason}"
    return replace(recipe, compute_dtype="fp32"), (note,)


def name_base(model: Any, base: Base) -> None:
    """Name the base in the adapter's configuration by its facts."""
    if is_adapter(model):
        # PEFT would write the folder of the base, which is a place in this machine's cache.
        config, facts = model.peft_config[model.active_adapter], base.facts
        config.base_model_name_or_path, config.revision = named_base(facts.source, facts.commit), facts.commit


def precision_notes(network: Any, recipe: Recipe) -> tuple[str, ...]:
    """Notes for the record on a method that departs from the precision of a 16-bit base."""
    precision = str(network.dtype).removeprefix("torch.")
    if precision == "float32":
        return ()
    if recipe.method == "full":
        return (f"the base's {precision} weights were trained and saved in float32",)
    if recipe.method in TAKE_FROM_BASE:
        return (
            f"{recipe.method} rounded the rest of the base's weights to {precision} while it trained; "
            "the saved adapter is for the original base and differs by that rounding",
        )
    return ()


def training_rows(rows: "Dataset", recipe: Recipe) -> "Dataset":
    """Columns input_ids and labels; if packed, several samples a row and their `seq_lengths`.

    TRL's collator makes one long row of a packed batch, whose position ids restart with each
    sample. transformers builds a mask from them that separates the samples, and padding_free.py
    cuts the row there (tests/training/test_packing.py).
    """
    rows = rows.select_columns(COLUMNS)
    if not recipe.packing:
        return rows
    from trl import pack_dataset

    return pack_dataset(rows, recipe.max_length_tokens, "bfd")
