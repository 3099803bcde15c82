"""Shared by the peers on a CPU: a cell of a study, trained by TRL and PEFT as in their documentation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import Study


@dataclass(frozen=True)
class PlainRun:
    """A cell to train in `folder`; `rows`: training and held-out rows; without `adapters` the base itself is used."""

    study: Study
    cell: Any
    folder: Path
    rows: tuple[Any, Any]
    tokenizer: Any
    steps: int
    adapters: bool = True


def make_trainer(run: PlainRun, *, callbacks: tuple[Any, ...] = (), **options: Any) -> Any:
    """TRL's trainer of a freshly loaded base with a cell's settings; `options` go to SFTConfig unchanged."""
    from peft import LoraConfig
    from transformers import set_seed
    from trl import SFTTrainer

    cell, settings = run.cell, run.cell.settings
    set_seed(settings.seed)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules
        if isinstance(settings.target_modules, str)
        else list(settings.target_modules),
    )
    train, heldout = run.rows
    return SFTTrainer(
        model=_load(run.study.base_entry(cell)),
        processing_class=run.tokenizer,
        train_dataset=train,
        eval_dataset=heldout,
        peft_config=lora if run.adapters else None,
        args=_config(run, **options),
        callbacks=list(callbacks),
    )


def _load(entry: ModelEntry) -> Any:
    """The base in 32 bits, or in 4 bits as in QLoRA's examples, with gradients kept as in `loragrid.models.loading`."""
    import torch
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from loragrid.models.loading import keep_unpacked

    if entry.precision not in ("32bit", "4bit"):
        raise ValueError(f"the plain script has no precision {entry.precision}")
    if entry.precision == "32bit":
        return AutoModelForCausalLM.from_pretrained(entry.path, dtype="float32")
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(entry.path, dtype=torch.bfloat16, quantization_config=four_bit)
    keep_unpacked(model)
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def _config(run: PlainRun, **options: Any) -> Any:
    from trl import SFTConfig

    settings = run.cell.settings
    return SFTConfig(
        output_dir=str(run.folder),
        max_steps=run.steps,
        per_device_train_batch_size=settings.per_device,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup.updates(run.steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim=settings.optimizer,
        seed=settings.seed,
        logging_steps=1,
        report_to="none",
        loss_type="nll",
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        max_length=None,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )
