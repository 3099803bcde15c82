"""How much memory of the GPU a run takes at its peak, by part, predicted from shapes alone. Imports no torch.

The bytes per activation and per logit were counted on a CPU with torch's own record of allocations (a test repeats it):
Llama with LoRA on every linear map, transformers 5.17, PEFT 0.21. What a GPU adds (context, workspaces, fragmentation) is
assumed, not measured: see ASSUME.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from loragrid.models.batch_sizes import CHOICE_LOGITS_PER_PASS, LOGITS_PER_PASS, TOKENS_PER_PASS
from loragrid.models.shape import Shape, overflows_float16

MIB = 2**20
# NF4 with double quantisation: 4 bits, an 8-bit constant per 64 weights, a 32-bit one per 256 of those (QLoRA, Dettmers
# et al. 2023, https://arxiv.org/abs/2305.14314, section 3: 0.127 bits of constants per weight).
FOUR_BIT_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
FULL_BYTES = {"32bit": 4, "16bit": 2, "4bit": 2}
# Bytes per logit at the peak of a backward pass: their float32 softmax and its gradients, in 16 bits also the copy.
LOGIT_BYTES = {"fp32": 12, "half": 12.25}
LOGIT_BYTES_FORWARD = {"fp32": 8, "half": 10}
# ASSUME: unsloth's loss kernel writes gradients over the logits. Half the bytes explain the 6.5 GB that public runs of
# Llama-3.2-3B report on a T4 at batch 2 and 2048 tokens (a test repeats the sum); not measured here.
LOGIT_BYTES_UNSLOTH = {"fp32": 8, "half": 4}
# One layer being recomputed and differentiated: bytes per token and unit of the inner and of the hidden size.
LAYER_BYTES = {"fp32": (24, 37), "half": (15, 53)}
# bitsandbytes keeps the states of tensors below this size in 32 bits.
EIGHT_BIT_FROM = 4096
# ASSUME: a CUDA context with its libraries' workspaces takes this much, and the allocator wastes a tenth of what comes and goes.
CONTEXT_MIB = 500
FRAGMENTATION = 0.1
# ASSUME: a scored choice is at most this long with its question, and an answer with its question as long as that.
CHOICE_TOKENS, ANSWER_TOKENS = 256, 2048
SCORE_LOGIT_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Predicted peak, MiB, by part; the parts are there at the same time."""

    weights: float
    adapters: float
    optimizer: float
    activations: float
    logits: float
    overhead: float

    @property
    def total_mib(self) -> int:
        """Their sum, rounded up."""
        return int(sum(vars(self).values())) + 1


def training_memory(
    shape: Shape,
    *,
    precision: str,
    rank: int,
    target_modules: str | Sequence[str],
    optimizer: str,
    per_device: int,
    max_length_tokens: int,
    compute_dtype: str,
    backend: str,
    checkpointing: bool,
) -> Memory:
    """Of a training run: the larger of its training step, with every row as long as allowed, and its held-out pass."""
    tensors = shape.adapter_tensors(rank=rank, target_modules=target_modules)
    kind = computed_in(shape, compute_dtype)
    tokens = per_device * max_length_tokens
    held = _heldout_tokens(shape, max_length_tokens)
    per_logit = (LOGIT_BYTES_UNSLOTH if backend == "unsloth" else LOGIT_BYTES)[kind]
    logits = shape.vocab_size * max(tokens * per_logit, held * LOGIT_BYTES_FORWARD[kind])
    stream = 2 if backend == "unsloth" and kind == "half" else 4
    activations = tokens * _layers_bytes(shape, kind, stream=stream, checkpointing=checkpointing)
    if precision == "4bit":  # one matrix at a time is unpacked
        activations += FULL_BYTES["16bit"] * max(a * b for a, b in shape.linears().values())
    return Memory(
        weights=weight_bytes(shape, precision, backend=backend, kind=kind) / MIB,
        # The adapters themselves and their gradients, float32 both.
        adapters=8 * sum(tensors) / MIB,
        optimizer=sum(_optimizer_bytes(size, optimizer) for size in tensors) / MIB,
        activations=activations / MIB,
        logits=logits / MIB,
        overhead=CONTEXT_MIB + FRAGMENTATION * (activations + logits) / MIB,
    )


def scoring_memory(
    shape: Shape,
    *,
    precision: str,
    adapters: int,
    batch_size: int,
    max_length_tokens: int,
    compute_dtype: str,
    answer_tokens: int = ANSWER_TOKENS,
) -> Memory:
    """Of scoring: the largest of its held-out pass, choices in one batch, and answers in one batch with their cache."""
    kind = computed_in(shape, compute_dtype)
    held = _heldout_tokens(shape, max_length_tokens)
    choices = min(batch_size * CHOICE_TOKENS, max(CHOICE_TOKENS, CHOICE_LOGITS_PER_PASS // shape.vocab_size))
    cached = 2 * shape.layers * shape.kv_heads * shape.head_dim  # numbers per token: a key and a value in every layer
    cache = batch_size * answer_tokens * cached * (4 if kind == "fp32" else 2)
    per_token = 4 * (2 * shape.intermediate_size + 4 * shape.hidden_size)
    at_once = (  # activations and logits of each of the three
        (per_token * held, held * shape.vocab_size * LOGIT_BYTES_FORWARD[kind]),
        (per_token * choices, choices * shape.vocab_size * SCORE_LOGIT_BYTES),
        (per_token * batch_size * CHOICE_TOKENS + cache, batch_size * shape.vocab_size * SCORE_LOGIT_BYTES),
    )
    activations, logits = max(at_once, key=sum)
    return Memory(
        weights=weight_bytes(shape, precision, backend="scoring", kind=kind) / MIB,
        adapters=4 * adapters / MIB,
        optimizer=0.0,
        activations=activations / MIB,
        logits=logits / MIB,
        overhead=CONTEXT_MIB + FRAGMENTATION * (activations + logits) / MIB,
    )


def weight_bytes(shape: Shape, precision: str, *, backend: str, kind: str = "half") -> float:
    """The frozen base, computed in `kind`. In 4 bits only the layers' matrices are quantised; PEFT's preparation for the trl
    backend turns the rest (embeddings, head, norms) into float32, unsloth leaves it in 16 bits, scoring in `kind`."""
    in_float32 = kind == "fp32" and backend != "unsloth"
    if precision != "4bit":
        return (4 if in_float32 else FULL_BYTES[precision]) * shape.parameters()
    rest = shape.parameters() - shape.linear_parameters()
    return FOUR_BIT_BYTES * shape.linear_parameters() + (4 if in_float32 or backend == "trl" else 2) * rest


def computed_in(shape: Shape, compute_dtype: str) -> str:
    """ "fp32" or "half", as the model is really computed in where it overflows what was asked for."""
    in_float32 = compute_dtype == "fp32" or (compute_dtype == "fp16" and overflows_float16(shape.model_type))
    return "fp32" if in_float32 else "half"


def _heldout_tokens(shape: Shape, max_length_tokens: int) -> int:
    """Of one pass over held-out rows, at most."""
    return max(max_length_tokens, min(TOKENS_PER_PASS, LOGITS_PER_PASS // shape.vocab_size))


def _layers_bytes(shape: Shape, kind: str, *, stream: int, checkpointing: bool) -> float:
    """Bytes per token: with checkpointing each layer's input and one layer at work, without it all layers at work."""
    inner, hidden = LAYER_BYTES[kind]
    # Wide heads (Gemma's are wider than its hidden size) count as the hidden size that they take the place of.
    width = max(shape.hidden_size, shape.heads * shape.head_dim)
    working = inner * shape.intermediate_size + hidden * width
    if checkpointing:
        return stream * shape.layers * shape.hidden_size + working
    return shape.layers * working


def _optimizer_bytes(size: int, optimizer: str) -> float:
    """States of one trained tensor of that many parameters: Adam keeps two per parameter."""
    if optimizer.startswith("adamw_torch"):
        return 8 * size
    if optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        # Two bytes and, per block of 256, a float32 scale of each state.
        return 8 * size if size < EIGHT_BIT_FROM else 2 * size + 8 * size / 256
    if optimizer == "adafactor":
        return 4 * 2 * size**0.5
    return 0.0
