"""Sizes of one pass, where the logits fill the memory: limits without training, and what each backend's loss holds."""

import math

# 512 MiB of float32 logits: 1,046 tokens for a vocabulary of 128,256.
LOGITS_PER_PASS = 2**27
# lm-eval scores a batch of answer choices from all its logits at once and copies them: 2 GiB of
# float32, twice.
CHOICE_LOGITS_PER_PASS = 2**29

# Rows of a step that writes answers on a CPU, if their cache fits CACHE_BYTES: each step reads all weights, whatever
# the number of its rows. With SmolLM2-135M a step of 48 rows takes five times as long as one of a single row.
ROWS_ON_CPU, CACHE_BYTES = 48, 2**31

# TRL's names of the losses of the trl backend. `nll` holds the logits of a whole batch, which a GPU has no room for;
# `chunked_nll` computes each chunk twice, and a CPU has the memory.
TRL_LOSS = {"cpu": "nll", "cuda": "chunked_nll"}
LIGER_LOSS = "liger"  # not a loss of TRL's: the one of liger's kernels (training/backends/liger_kernels.py)
# Bytes per logit of that one, whose gradients take the place of the logits: in 16 bits a part and the one before it.
LIGER_LOGIT_BYTES = 4
# The one of training/backends/head_loss.py on a CPU, in float32; the families whose own loss it is. Other families are
# tried when they are trained.
HEAD_LOSS, HEAD_LOSS_FAMILIES = "head", ("llama", "mistral", "gemma", "gemma3_text", "qwen2", "qwen3")
# With fewer rows a product of matrices spends its time on arranging the head's weights (measured with 49,152 words).
LOGITS_PER_PART, LEAST_ROWS = 2**22, 256
# Families (the beginning of transformers' `model_type`) whose logits `chunked_nll` would not scale as the model does;
# training tries it on the model itself.
OWN_SCALE = ("granite", "falcon_h1", "hyperclovax")
# Tokens whose logits TRL's `chunked_nll` holds at once (trl 1.14.2).
TRL_CHUNK_ROWS = 256
# unsloth's fused loss works on an eighth of the tokens at a time, but on at least so many, and on no more logits
# than fit the limit (unsloth_zoo 2026.10.9).
UNSLOTH_LEAST_ROWS, UNSLOTH_PARTS = 512, 8
UNSLOTH_CHUNK_BYTES = 2 * 2**30
# Bytes per logit of such a part: the float32 logits and their gradients.
UNSLOTH_LOGIT_BYTES = 8


def rows_with_logits(backend: str, *, tokens: int, vocab_size: int, loss: str = "nll") -> int:
    """Number of `tokens` whose logits exist at the same time in a pass with loss.

    `backend`: trl or unsloth; `loss`: the former's, as TRL calls it.
    """
    if backend == "unsloth":
        part = max(UNSLOTH_LEAST_ROWS, -(-tokens // UNSLOTH_PARTS))
        limit = UNSLOTH_CHUNK_BYTES // (UNSLOTH_LOGIT_BYTES * vocab_size)
        return min(tokens, part, max(2, limit))
    if loss == "chunked_nll":
        return min(tokens, TRL_CHUNK_ROWS)
    return tokens


def head_loss_rows(tokens: int, *, vocab_size: int) -> int:
    """Number of `tokens` whose logits exist at the same time in `HEAD_LOSS`."""
    return min(tokens, max(LEAST_ROWS, LOGITS_PER_PART // vocab_size))


def head_loss_bytes(*, tokens: int, vocab_size: int, hidden_size: int) -> float:
    """Bytes that `HEAD_LOSS` holds at once: float32 logits of a part, which become their gradients in place, and the
    gradients of all hidden states."""
    return 4 * (head_loss_rows(tokens, vocab_size=vocab_size) * vocab_size + tokens * hidden_size)


def answers_on_cpu(batch_size: int, *, row_bytes: int) -> int:
    """How many answers are written together on a CPU; `row_bytes`: of the cache of one."""
    return max(batch_size, min(ROWS_ON_CPU, CACHE_BYTES // row_bytes))


def liger_loss_bytes(*, tokens: int, vocab_size: int, hidden_size: int) -> float:
    """Bytes that liger's fused loss holds at once: logits of a part of the tokens, gradients of all hidden states.

    A part has about as many logits as the tokens have hidden numbers (liger-kernel 0.8.5).
    """
    part = math.ceil(tokens / math.ceil(vocab_size / hidden_size))
    rows = min(tokens, 1 << (part - 1).bit_length())  # the next power of two
    return rows * vocab_size * LIGER_LOGIT_BYTES + 4 * tokens * hidden_size
