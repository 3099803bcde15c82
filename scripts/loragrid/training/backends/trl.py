"""Backend `trl`: TRL's SFTTrainer with PEFT LoRA, on a CPU or a CUDA GPU."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.models.adapter_files import check_target_modules
from loragrid.models.batch_sizes import LOGITS_PER_PASS
from loragrid.models.loading import load_base, load_tokenizer
from loragrid.models.model_files import base_facts
from loragrid.models.shape import overflows_float16
from loragrid.study.sections import ModelEntry
from loragrid.training.backends.interface import Base
from loragrid.training.backends.padding_free import enable_padding_free, is_padding_free, loss_only
from loragrid.training.backends.recipe import Recipe
from loragrid.training.trainer_hooks import TrainerHooks

if TYPE_CHECKING:
    from datasets import Dataset

# Small enough for a CPU's caches, enough to fill a GPU.
HELDOUT_POSITIONS = {"cpu": 2048, "cuda": 8192}


class TrlBackend:
    """See `loragrid.training.backends.interface.Backend`."""

    name = "trl"

    def load(self, entry: ModelEntry, *, recipe: Recipe) -> Base:
        """The base in its precision; a 4-bit one is made ready for adapters (norms in float32, input gradients)."""
        model = load_base(entry, device=recipe.device)
        if recipe.device == "cpu":
            enable_padding_free(model)
        if entry.precision == "4bit":
            from peft import prepare_model_for_kbit_training

            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        model.requires_grad_(False)
        return Base(model, load_tokenizer(entry), base_facts(entry))

    def adapt(self, base: Base, *, recipe: Recipe) -> Any:
        """LoRA on the recipe's linear layers: A drawn from the seed, B zero, both in float32 whatever the base is in."""
        from peft import LoraConfig, get_peft_model
        from transformers import set_seed

        set_seed(recipe.seed)
        modules = recipe.target_modules
        check_target_modules(base.model, modules)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            target_modules=modules if isinstance(modules, str) else list(modules),
            bias="none",
        )
        model = get_peft_model(base.model, config)
        # PEFT writes the folder that the base was loaded from, a place in this machine's cache.
        config.base_model_name_or_path, config.revision = base.facts.source, base.facts.commit
        return model

    def release(self, base: Base, model: Any) -> Base:
        """The base without the adapters, its layers the ones that were loaded."""
        return replace(base, model=model.unload())

    def trainer(
        self, model: Any, *, base: Base, recipe: Recipe, train: "Dataset", heldout: "Dataset", folder: Path
    ) -> TrainerHooks:
        """An SFTTrainer on rows that are tokenised, labelled and cut already."""
        network = model.get_base_model()  # that of `base` where one is lent, a new one where each run loads its own
        recipe, notes = self.settle(recipe, model_type=network.config.model_type)
        trainer = self.trainer_class()(
            model=model,
            args=self.config(recipe, folder=folder),
            train_dataset=training_rows(train, recipe),
            processing_class=base.tokenizer,
        )
        # TRL casts the adapters of a 4-bit base to bfloat16, which a GradScaler (fp16, a T4) cannot unscale and which
        # loses small updates; PEFT's own float32 is kept.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if is_padding_free(network):
            trainer.per_sample = trainer.data_collator.padding_free = True  # instead of what `sft_settings` says
        trainer.heldout = heldout_batches(
            heldout,
            pad_token_id=base.tokenizer.pad_token_id,
            positions=heldout_positions(recipe.device, network.config.get_text_config().vocab_size),
            padding_free=trainer.per_sample,
        )
        trainer.notes = notes
        return trainer

    def settle(self, recipe: Recipe, *, model_type: str) -> tuple[Recipe, tuple[str, ...]]:
        """The recipe as this model can be trained, with a note where that is not what was asked for."""
        if recipe.compute_dtype != "fp16" or not overflows_float16(model_type):
            return recipe, ()
        note = f"trained in float32 where fp16 was asked for: the activations of a {model_type} overflow float16"
        return replace(recipe, compute_dtype="fp32"), (note,)

    def trainer_class(self) -> type:
        """The class of `trainer`."""
        return import_trainer()

    def config(self, recipe: Recipe, *, folder: Path) -> Any:
        """The settings of `sft_settings` in TRL's form."""
        from trl import SFTConfig

        return SFTConfig(**sft_settings(recipe, folder=folder))


def sft_settings(recipe: Recipe, *, folder: Path) -> dict[str, Any]:
    """Every setting that could change the result, written out; evaluation, saving and logging are the progress's."""
    cuda = recipe.device == "cuda"
    return dict(
        output_dir=str(folder),
        max_steps=1,  # set by `attach_progress`
        per_device_train_batch_size=recipe.per_device,
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps,
        optim=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        seed=recipe.seed,
        data_seed=recipe.seed,
        use_cpu=not cuda,
        fp16=recipe.compute_dtype == "fp16",
        bf16=recipe.compute_dtype == "bf16",
        tf32=False if cuda else None,
        # Recomputing activations costs a third of the time and is what makes a 3B model fit a T4; a CPU has the memory.
        gradient_checkpointing=cuda,
        gradient_checkpointing_kwargs={"use_reentrant": False} if cuda else None,
        loss_type="nll",
        packing=recipe.packing,
        packing_strategy="bfd",
        padding_free=recipe.packing,
        eval_packing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        shuffle_dataset=False,
        completion_only_loss=False,
        assistant_only_loss=False,
        train_sampling_strategy="random",
        dataloader_num_workers=0,
        dataloader_pin_memory=cuda,
        dataloader_drop_last=False,
        average_tokens_across_devices=False,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        report_to=recipe.report_to,
        disable_tqdm=True,
        push_to_hub=False,
    )


def training_rows(rows: "Dataset", recipe: Recipe) -> "Dataset":
    """Columns input_ids and labels; packed, several samples a row, with their lengths in a third column, seq_lengths.

    A packed batch becomes one long row whose position ids begin anew with each sample: from those transformers builds a
    mask that keeps the samples apart, and `per_sample` cuts the row (tests hold both to that).
    """
    rows = rows.select_columns(["input_ids", "labels"])
    if not recipe.packing:
        return rows
    from trl import pack_dataset

    return pack_dataset(rows, recipe.max_length_tokens, "bfd")


def heldout_positions(device: str, vocabulary: int) -> int:
    """Positions of a held-out batch: as many as are fast, unless their logits alone would fill the card (8,192 positions
    of Gemma's 262,144 words are 8 GiB in float32, more than the training step needs)."""
    return min(HELDOUT_POSITIONS[device], LOGITS_PER_PASS // vocabulary)


def heldout_batches(rows: "Dataset", *, pad_token_id: int, positions: int, padding_free: bool) -> list[dict[str, Any]]:
    """The rows in order of length, in batches of at most `positions` (or one row), padded or put into one row; the same
    always."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=pad_token_id, padding_free=padding_free)
    examples = sorted(rows.select_columns(["input_ids", "labels"]), key=lambda row: len(row["input_ids"]))
    return [collate(batch) for batch in _by_positions(examples, positions)]


def _by_positions(examples: list[dict[str, Any]], positions: int) -> Iterable[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for example in examples:  # shortest first: the newest is the longest of its batch
        if batch and len(example["input_ids"]) * (len(batch) + 1) > positions:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch


@cache
def import_trainer() -> type:
    """The trainer's class, made here because its parent takes seconds to import."""
    from transformers import PrinterCallback, Trainer
    from trl import SFTTrainer

    class TrlTrainer(TrainerHooks, SFTTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.remove_callback(PrinterCallback)

        def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **named: Any) -> Any:
            # TRL's own also takes the entropy and the accuracy of every token, in float32 over the whole vocabulary,
            # which nothing here reports: the loss is transformers' either way.
            inputs["use_cache"] = False
            if self.per_sample:
                inputs |= loss_only(inputs["labels"])
            return Trainer.compute_loss(self, model, inputs, return_outputs=return_outputs, **named)

    return TrlTrainer
