"""Pre-training of the demo's base models: a plain, seeded PyTorch loop on one thread in fp32."""

import math
import time
from dataclasses import dataclass
from itertools import islice
from typing import Any

from loragrid.demo.corpus import Document, documents

BLOCK_TOKENS = 256
BLOCKS_PER_STEP = 8
CONTEXT_TOKENS = 512
WARMUP_STEPS = 50
WEIGHT_DECAY = 0.05
FINAL_RATE_FRACTION = 0.02
DOCUMENTS_PER_CALL = 2000


@dataclass(frozen=True)
class PretrainingRecipe:
    """How one base model is pre-trained. `config`: arguments of its architecture's transformers configuration class."""

    architecture: str
    config: dict[str, Any]
    learning_rate: float
    steps: int
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


def token_blocks(tokenizer: Any, *, steps: int, seed: int, world_seed: int) -> Any:
    """Concatenated documents in blocks: int64 tensor [steps, BLOCKS_PER_STEP, BLOCK_TOKENS]."""
    import torch

    wanted = steps * BLOCKS_PER_STEP * BLOCK_TOKENS
    stream = documents(seed=seed, world_seed=world_seed)
    tokens: list[int] = []
    while len(tokens) < wanted:
        texts = [_with_special_tokens(document, tokenizer) for document in islice(stream, DOCUMENTS_PER_CALL)]
        for ids in tokenizer(texts, add_special_tokens=False).input_ids:
            tokens += ids
    return torch.tensor(tokens[:wanted]).view(steps, BLOCKS_PER_STEP, BLOCK_TOKENS)


def pretrain(recipe: PretrainingRecipe, tokenizer: Any, *, world_seed: int) -> tuple[Any, dict[str, float]]:
    """The model pre-trained by `recipe`, and its first and last losses (nats per token, mean of 20 steps), seconds and
    tokens.

    AdamW with a cosine schedule. The same recipe gives the same bits on the same machine and torch version.
    """
    import torch

    # With several threads the order of a sum, and so its rounding, depends on the machine.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = build_model(recipe, tokenizer)
    blocks = token_blocks(tokenizer, steps=recipe.steps, seed=recipe.seed, world_seed=world_seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY
    )
    started, losses = time.perf_counter(), []
    model.train()
    for step, block in enumerate(blocks):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate_fraction(step, recipe.steps)
        loss = model(input_ids=block, labels=block).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 0:
            seconds = time.perf_counter() - started
            print(f"step {step} of {recipe.steps}: loss {losses[-1]:.3f}, {seconds:.0f} s", flush=True)
    # A single step's loss is too noisy for the table of the README.
    few = min(20, len(losses))
    return model.eval(), {
        "first_loss": sum(losses[:few]) / few,
        "last_loss": sum(losses[-few:]) / few,
        "seconds": time.perf_counter() - started,
        "tokens": blocks.numel(),
    }


def _with_special_tokens(document: Document, tokenizer: Any) -> str:
    if isinstance(document, str):
        return f"{tokenizer.bos_token}{document}{tokenizer.eos_token}"
    question, answer = document
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return tokenizer.apply_chat_template(messages, tokenize=False)


def _rate_fraction(step: int, steps: int) -> float:
    """Fraction of the peak learning rate: linear warm-up, then a cosine down to `FINAL_RATE_FRACTION`."""
    warmup = min(WARMUP_STEPS, max(1, steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return FINAL_RATE_FRACTION + (1 - FINAL_RATE_FRACTION) * 0.5 * (1 + math.cos(math.pi * progress))
