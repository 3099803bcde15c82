"""Pre-training of the demo's base models: a plain, seeded PyTorch loop on one thread in fp32, measured as it goes."""

import math
import time
from dataclasses import dataclass
from itertools import islice
from typing import Any

from loragrid.demo.convergence import HeldoutText, Measurement, as_curve, measured_steps
from loragrid.demo.corpus import documents, with_special_tokens

BLOCK_TOKENS = 256
CONTEXT_TOKENS = 512
WARMUP_STEPS = 50
WEIGHT_DECAY = 0.05
FINAL_RATE_FRACTION = 0.02
DOCUMENTS_PER_CALL = 2000


@dataclass(frozen=True)
class PretrainingRecipe:
    """How one base model is pre-trained. `config`: arguments of its architecture's transformers configuration class.

    `matrix_learning_rate`: peak rate of Muon, for the matrices of the layers; `learning_rate`: that of AdamW, for
    embeddings and norms.
    """

    architecture: str
    config: dict[str, Any]
    matrix_learning_rate: float
    learning_rate: float
    steps: int
    blocks_per_step: int
    seed: int


def build_model(recipe: PretrainingRecipe, tokenizer: Any) -> Any:
    """The model with weights drawn from `recipe.seed`, fp32, on the CPU."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

    config_class, model_class = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
    }[recipe.architecture]
    config = config_class(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        **recipe.config,
    )
    # Seeded right before the weights are drawn, so that nothing else consumes random numbers.
    torch.manual_seed(recipe.seed)
    return model_class(config).to(torch.float32)


def token_blocks(recipe: PretrainingRecipe, tokenizer: Any, *, world_seed: int) -> Any:
    """Concatenated documents in blocks: int64 tensor [steps, blocks per step, BLOCK_TOKENS]."""
    import torch

    wanted = recipe.steps * recipe.blocks_per_step * BLOCK_TOKENS
    stream = documents(seed=recipe.seed, world_seed=world_seed)
    tokens: list[int] = []
    while len(tokens) < wanted:
        texts = [with_special_tokens(document, tokenizer) for document in islice(stream, DOCUMENTS_PER_CALL)]
        for ids in tokenizer(texts, add_special_tokens=False).input_ids:
            tokens += ids
    return torch.tensor(tokens[:wanted]).view(recipe.steps, recipe.blocks_per_step, BLOCK_TOKENS)


def pretrain(recipe: PretrainingRecipe, tokenizer: Any, *, world_seed: int) -> tuple[Any, dict[str, Any]]:
    """The model pre-trained by `recipe`, and its figures: tokens, seconds, last training loss, and the held-out curve.

    A cosine schedule. The same recipe gives the same bits on the same machine and torch version.
    """
    import torch

    # With several threads the order of a sum, and so its rounding, depends on the machine.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = build_model(recipe, tokenizer)
    blocks = token_blocks(recipe, tokenizer, world_seed=world_seed)
    heldout, due = HeldoutText(tokenizer, world_seed=world_seed), measured_steps(recipe.steps)
    optimizers = _optimizers(model, recipe)
    started, losses = time.perf_counter(), []
    curve = [_measure(heldout, model, step=0, of=recipe.steps)]
    for step, block in enumerate(blocks, start=1):
        losses.append(_update(model, block, optimizers, rate_fraction=_rate_fraction(step - 1, recipe.steps)))
        if step in due:
            curve.append(_measure(heldout, model, step=step, of=recipe.steps))
    # A single step's loss is too noisy for the table of the README.
    few = min(20, len(losses))
    return model.eval(), {
        "last_loss": sum(losses[-few:]) / few,
        "seconds": time.perf_counter() - started,
        "tokens": blocks.numel(),
        "warmup_steps": _warmup_steps(recipe.steps),
        "curve": as_curve(curve),
    }


def _optimizers(model: Any, recipe: PretrainingRecipe) -> list[Any]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms; each group knows its peak rate."""
    import torch

    from loragrid.demo.muon import Muon

    matrices, others = [], []
    for name, weights in model.named_parameters():
        (matrices if weights.ndim == 2 and "embed" not in name else others).append(weights)
    optimizers = [
        Muon(matrices, lr=recipe.matrix_learning_rate, weight_decay=WEIGHT_DECAY),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY),
    ]
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak"] = group["lr"]
    return optimizers


def _update(model: Any, block: Any, optimizers: list[Any], *, rate_fraction: float) -> float:
    """One step on one block; returns its loss."""
    import torch

    loss = model(input_ids=block, labels=block).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_fraction
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def _measure(heldout: HeldoutText, model: Any, *, step: int, of: int) -> Measurement:
    measured = heldout.measure(model, step=step)
    losses = f"held-out loss {measured.heldout_loss:.3f}, of answers {measured.answer_loss:.3f}"
    print(f"step {step} of {of}: {losses}", flush=True)
    return measured


def _warmup_steps(steps: int) -> int:
    return min(WARMUP_STEPS, max(1, steps // 10))


def _rate_fraction(step: int, steps: int) -> float:
    """Fraction of the peak learning rate: linear warm-up, then a cosine down to `FINAL_RATE_FRACTION`."""
    warmup = _warmup_steps(steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return FINAL_RATE_FRACTION + (1 - FINAL_RATE_FRACTION) * 0.5 * (1 + math.cos(math.pi * progress))
