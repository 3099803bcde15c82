"""What a backend trains on and what comes of it, as plain values: two backends are compared by their traces, each made in a
process of its own, since unsloth changes the libraries for both."""

from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from study.backends import choose_backend, make_recipe
from train_toys import make_toy, rows_of

VARIANTS: dict[str, dict[str, Any]] = {
    # Dropout is drawn for padding too, of which one of the backends has none.
    "padded": {"training__dropout": 0.0},
    "packed": {"training__packing": True},
    "8-bit optimizer, bf16": {
        "training__optimizer": "adamw_8bit",
        "training__compute_dtype": "bf16",
        "training__dropout": 0.0,
    },
    "two kinds of layers": {
        "training__target_modules": ["q_proj", "v_proj"],
        "training__alpha": 32,
        "training__dropout": 0.0,
    },
}


def can_train(variant: str) -> bool:
    """Whether this interpreter has what the variant needs."""
    return "8bit" not in VARIANTS[variant].get("training__optimizer", "") or find_spec("bitsandbytes") is not None


def trace(backend: str, variant: str, *, model: Path, folder: Path) -> dict[str, Any]:
    """Train 12 updates; per update the batches' tokens and labels and the loss's divisor, then losses, counts, optimizer."""
    toy = make_toy(folder, model, training__backend=backend, **VARIANTS[variant])
    with _watched() as seen:
        record = toy.train(folder / "run")
    counts = {key: getattr(record, key) for key in ("steps", "samples", "tokens", "loss_tokens")}
    counts["trainable_parameters"] = record.trainable_parameters
    losses = [float(row["loss"]) for row in rows_of(folder / "run")]
    return seen | {"losses": losses, "counts": counts, "adapter": _fresh_adapter(toy, backend)}


def _samples(batch: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Tokens and labels of each sample, without padding; a first token is never predicted, so it has no label."""
    if "attention_mask" in batch:
        cuts = [(row, slice(0, length)) for row, length in enumerate(batch["attention_mask"].sum(dim=1).tolist())]
    else:
        ends = [*(batch["position_ids"][0] == 0).nonzero()[:, 0].tolist(), batch["position_ids"].shape[1]]
        cuts = [(0, slice(start, end)) for start, end in pairwise(ends)]
    return [
        (batch["input_ids"][row, cut].tolist(), [-100, *batch["labels"][row, cut].tolist()[1:]]) for row, cut in cuts
    ]


@contextmanager
def _watched() -> Any:
    from transformers import Trainer

    from study.backends.followed import FollowedTrainer

    seen: dict[str, Any] = {"updates": [], "optimizer": None}
    sample, create = FollowedTrainer.get_batch_samples, Trainer.create_optimizer

    def sampled(trainer: Any, *arguments: Any) -> Any:
        batches, items = sample(trainer, *arguments)
        if batches:
            fed = [_samples(batch) for batch in batches]
            seen["updates"].append({"batches": fed, "divisor": int(items)})
        return batches, items

    def created(trainer: Any, *arguments: Any, **named: Any) -> Any:
        optimizer = create(trainer, *arguments, **named)
        groups = [
            {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")} for group in optimizer.param_groups
        ]
        seen["optimizer"] = [str(type(trainer.optimizer)), repr(groups), trainer.accelerator.mixed_precision]
        return optimizer

    FollowedTrainer.get_batch_samples, Trainer.create_optimizer = sampled, created
    try:
        yield seen
    finally:
        FollowedTrainer.get_batch_samples, Trainer.create_optimizer = sample, create


def _fresh_adapter(toy: Any, backend: str) -> dict[str, Any]:
    """The adapters before training: names, weights and scale."""
    recipe, maker = make_recipe(toy.study, toy.cell, device="cpu"), choose_backend(backend, device="cpu")
    model = maker.adapt(maker.load(toy.study.settings["models"]["toy"], recipe=recipe), recipe=recipe)
    config = model.peft_config["default"]
    weights = {name: value.tolist() for name, value in model.named_parameters() if "lora_" in name}
    return {"weights": weights, "r": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout}
