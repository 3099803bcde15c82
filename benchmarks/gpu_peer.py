"""The peer on a GPU: TRL alone, or unsloth alone, with our settings (padded or packed), or as each library does it by default.

    python -m benchmarks.gpu_peer LIBRARY --settings FILE.json --out FILE.json

The settings file holds model, data, precision, dtype, rank, per_device, accumulation, steps, most_tokens, packing and how. `how`
is "" for our settings; "its own defaults" for the library's choice of everything that the original study leaves open (loss,
padding, recomputation); or "its own defaults without recomputation". Writes step_seconds, tokens and loss_tokens per step, and
peak_vram_mib.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

WITHOUT = "its own defaults without recomputation"
TARGETS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()


def load_unsloth(settings: dict[str, Any]) -> tuple[Any, Any]:
    """The model with unsloth's own loader, adapters and checkpointing. Without a dtype unsloth takes bf16 if the card has it."""
    import torch
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        settings["model"],
        max_seq_length=settings["most_tokens"],
        dtype=torch.float16 if settings["dtype"] == "fp16" else None,
        load_in_4bit=settings["precision"] == "4bit",
        use_exact_model_name=True,
        local_files_only=True,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=settings["rank"],
        lora_alpha=settings["rank"],
        target_modules=TARGETS,
        use_gradient_checkpointing=False if settings["how"] == WITHOUT else "unsloth",
        random_state=3407,
    )
    return model, tokenizer


def load_trl(settings: dict[str, Any]) -> tuple[Any, Any]:
    """The model with transformers, bitsandbytes and PEFT, combined as in their documentation."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    half = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[settings["dtype"]]
    options: dict[str, Any] = {"dtype": half, "device_map": {"": 0} if torch.cuda.is_available() else None}
    if settings["precision"] == "4bit":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=half
        )
    model = AutoModelForCausalLM.from_pretrained(settings["model"], **options)
    if settings["precision"] == "4bit":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=settings["how"] != WITHOUT)
    lora = LoraConfig(task_type="CAUSAL_LM", r=settings["rank"], lora_alpha=settings["rank"], target_modules=TARGETS)
    return get_peft_model(model, lora), AutoTokenizer.from_pretrained(settings["model"])


def train(library: str, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train the steps and return the time of each."""
    model, tokenizer = load_unsloth(settings) if library == "unsloth" else load_trl(settings)
    import torch
    from datasets import Dataset
    from trl import SFTTrainer, pack_dataset

    rows = Dataset.from_parquet(f"{settings['data']}/train.parquet", cache_dir=str(folder))
    rows = rows.select_columns(["input_ids", "labels"])
    if settings["packing"]:
        rows = pack_dataset(rows, settings["most_tokens"], "bfd")
    if settings["how"] and library == "unsloth":
        rows._unsloth_truncated_to = settings["most_tokens"]  # unsloth marks the rows that it tokenises itself
    seconds: list[float] = []
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=rows,
        callbacks=[clock(seconds)],
        args=our_config(settings, folder) if not settings["how"] else default_config(settings, folder),
    )
    if settings["dtype"] == "fp16":  # TRL made the adapters of a 4-bit base bfloat16, which a GradScaler cannot unscale
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    batches = counting(trainer)
    trainer.train()
    del batches[settings["steps"] * settings["accumulation"] :]  # batches that were drawn ahead and never trained on
    fold = settings["accumulation"]
    peak = torch.cuda.max_memory_reserved() / 2**20 if torch.cuda.is_available() else None
    return {
        "step_seconds": seconds,
        "tokens_per_step": sum(tokens for tokens, _ in batches) / settings["steps"],
        "loss_tokens_per_step": sum(with_loss for _, with_loss in batches) / settings["steps"],
        "loss_tokens": [sum(row[1] for row in batches[at : at + fold]) for at in range(0, len(batches), fold)],
        "padding_free": getattr(trainer.data_collator, "padding_free", None),
        "peak_vram_mib": peak,
    }


def clock(seconds: list[float]) -> Any:
    """A callback that appends the seconds of every step, after the card has finished it."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.monotonic() - self.began)

    return Clock()


def our_config(settings: dict[str, Any], folder: Path) -> Any:
    """The original study's settings for TRL; what that study leaves open is set as loragrid sets it."""
    import torch
    from trl import SFTConfig

    cuda = torch.cuda.is_available()
    return SFTConfig(
        **study_settings(settings, folder),
        packing=settings["packing"],
        padding_free=settings["packing"],
        gradient_checkpointing=cuda,
        max_length=None,
        loss_type="nll",
        use_cpu=not cuda,
    )


def default_config(settings: dict[str, Any], folder: Path) -> Any:
    """The original study's settings; what that study leaves open is the library's default."""
    import torch
    from trl import SFTConfig

    cuda, changed = torch.cuda.is_available(), {}
    if settings["how"] == WITHOUT:
        changed["gradient_checkpointing"] = False
    if not cuda:  # TRL's default loss kernel needs a GPU
        changed |= {"use_cpu": True, "gradient_checkpointing": False, "loss_type": "nll"}
    return SFTConfig(**study_settings(settings, folder), max_length=settings["most_tokens"], **changed)


def study_settings(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings that the original study names, and the format of the rows."""
    return dict(
        output_dir=str(folder),
        max_steps=settings["steps"],
        per_device_train_batch_size=settings["per_device"],
        gradient_accumulation_steps=settings["accumulation"],
        learning_rate=2e-4,
        warmup_steps=5,
        weight_decay=0.01,
        lr_scheduler_type="linear",
        optim=settings["optimizer"],
        seed=3407,
        fp16=settings["dtype"] == "fp16",
        bf16=settings["dtype"] == "bf16",
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def counting(trainer: Any) -> list[tuple[int, int]]:
    """A list that grows with each batch that the trainer draws: its tokens, and those that carry loss."""
    batches, collator = [], trainer.data_collator
    collate = collator.torch_call

    def count(rows: list[dict[str, Any]]) -> Any:
        labels = [row["labels"] for row in rows]
        with_loss = sum(int(label) != -100 for row in labels for label in row)
        batches.append((sum(len(row) for row in labels), with_loss))
        return collate(rows)

    collator.torch_call = count
    return batches


def main() -> None:
    """Map the command line to `train`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=("trl", "unsloth"))
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    outcome = train(options.library, json.loads(options.settings.read_text()), options.out.parent)
    options.out.write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
