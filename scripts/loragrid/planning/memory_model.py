"""Peak GPU memory of training and scoring by part, predicted from shapes. Imports no torch.

The bytes per activation and per logit were counted on a CPU with torch's own record of allocations
(tests repeat it): Llama with LoRA on every linear map, transformers 5.17, PEFT 0.21. Which logits
exist at once is in models/batch_sizes.py. One number is fitted to public runs on GPUs, the share that
the allocator wastes; docs/plan.md compares the model with all of them.
"""

from dataclasses import dataclass

from loragrid.models.batch_sizes import (
    HEAD_LOSS,
    HEAD_LOSS_FAMILIES,
    LIGER_LOSS,
    OWN_SCALE,
    UNSLOTH_LOGIT_BYTES,
    head_loss_bytes,
    liger_loss_bytes,
    rows_with_logits,
)
from loragrid.models.float16_range import overflows_float16
from loragrid.models.passes.row_losses import largest_pass
from loragrid.models.shape import Shape
from loragrid.models.trained_weights import (
    Trainable,
    added_frozen,
    merged_parameters,
    optimizer_bytes,
    summed,
    trained_tensors,
)

MIB = 2**20
# NF4 with double quantisation: 4 bits, an 8-bit constant per 64 weights, a 32-bit one per 256 of
# those (QLoRA, Dettmers et al. 2023, https://arxiv.org/abs/2305.14314, section 3: 0.127 bits of
# constants per weight).
FOUR_BIT_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
FULL_BYTES = {"32bit": 4, "16bit": 2, "4bit": 2}
# Bytes per logit at the peak of a backward pass: their float32 softmax and its gradients, and in 16
# bits also the 16-bit copy.
LOGIT_BYTES = {"fp32": 12, "half": 12.25}
LOGIT_BYTES_FORWARD = {"fp32": 8, "half": 10}
CHUNKED_LOGIT_BYTES = 16.25  # of TRL's `chunked_nll`, with its entropies; in a forward pass as well
# One layer being recomputed and differentiated: bytes per token and unit of the inner and of the
# hidden size.
LAYER_BYTES = {"fp32": (24, 37), "half": (15, 53)}
# The part of them that a layer keeps until its backward pass if nothing is recomputed.
KEPT_BYTES = {"fp32": (16, 32), "half": (8, 28)}
# unsloth moves a layer's input to the machine's memory if it is larger than this, but for the last layer's, and
# has one on its way (unsloth_zoo 2026.10.9).
OFFLOADED_FROM_BYTES, INPUTS_NOT_OFFLOADED = 2 * 2**20, 2
# ASSUME: a CUDA context with its libraries' workspaces takes 500 MiB.
CONTEXT_MIB = 500
# Memory that the allocator wastes, as a share of what is allocated and freed in each step. Fitted: the smallest
# share with which no public run of today's losses takes more than predicted is 0.12 (docs/plan.md).
FRAGMENTATION = 0.15


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Predicted peak by part, MiB; all parts exist at the same time."""

    weights: float
    adapters: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    overhead: float

    @property
    def total_mib(self) -> int:
        """The sum of the parts, rounded up."""
        return int(sum(vars(self).values())) + 1


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """Settings of a training run that determine its memory, in the study file's words.

    `longest_tokens`: the longest row, if known to be shorter than `max_length_tokens`; `loss`: TRL's name of it, that
    of liger's, or `HEAD_LOSS`; `device`: cuda or cpu.
    """

    precision: str
    trainable: Trainable
    optimizer: str
    per_device: int
    max_length_tokens: int
    compute_dtype: str
    backend: str
    checkpointing: bool
    longest_tokens: int | None = None
    loss: str = "nll"
    device: str = "cuda"

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row that a step may see."""
        return min(self.longest_tokens or self.max_length_tokens, self.max_length_tokens)


def training_memory(shape: Shape, setup: TrainingSetup) -> Memory:
    """Memory of a training run: the larger of a step on its longest rows and a held-out pass."""
    tensors = trained_tensors(shape, setup.trainable)
    kind = computed_in(shape, setup.compute_dtype)
    # A held-out pass keeps nothing for a backward pass, but its adapter is merged.
    kept = kept_while_merged(shape, setup.trainable, precision=setup.precision, kind=kind)
    activations = max(_training_activations(shape, setup, kind), kept)
    logits = _training_logits(shape, setup, kind, activations=activations)
    weights = weight_bytes(shape, setup.precision, backend=setup.backend, kind=kind)
    # What is trained is in float32, and so are its gradients.
    trained = 4 * sum(tensors)
    adapters = trained + 4 * added_frozen(shape, setup.trainable)
    if setup.trainable.method == "full":
        weights, adapters = trained, 0
    return Memory(
        weights=weights / MIB,
        adapters=adapters / MIB,
        gradients=trained / MIB,
        optimizer=sum(optimizer_bytes(size, setup.optimizer) for size in tensors) / MIB,
        activations=activations / MIB,
        logits=logits / MIB,
        overhead=CONTEXT_MIB + FRAGMENTATION * (activations + logits) / MIB,
    )


def splits_base(memory: Memory, setup: TrainingSetup, *, gpus: int, vram_mib: float | None) -> bool:
    """Whether a run on several GPUs splits its base over them: one does not hold it, and it can be split."""
    too_large = vram_mib is not None and memory.total_mib > vram_mib
    return gpus > 1 and too_large and setup.precision != "4bit" and setup.trainable.method != "full"


def _training_logits(shape: Shape, setup: TrainingSetup, kind: str, *, activations: float) -> float:
    """Bytes of logits in a training step or, if that has fewer of them, in a held-out pass."""
    tokens = setup.per_device * setup.row_tokens
    loss = _loss_of(shape, setup.loss)
    rows = rows_with_logits(setup.backend, tokens=tokens, vocab_size=shape.vocab_size, loss=loss)
    if setup.backend == "unsloth":
        return shape.vocab_size * rows * UNSLOTH_LOGIT_BYTES
    # A held-out pass keeps no gradients, but it may have more tokens than a training step.
    heldout = heldout_tokens(shape, setup.row_tokens, setup.device) * LOGIT_BYTES_FORWARD[kind]
    if loss == LIGER_LOSS:
        step = liger_loss_bytes(tokens=tokens, vocab_size=shape.vocab_size, hidden_size=shape.hidden_size)
        return max(step, shape.vocab_size * heldout - activations)
    if loss == HEAD_LOSS:
        step = head_loss_bytes(tokens=tokens, vocab_size=shape.vocab_size, hidden_size=shape.hidden_size)
        return max(step, shape.vocab_size * heldout - activations)
    if loss == "chunked_nll":
        # A held-out pass has whole logits, in the place of a step's activations.
        return max(shape.vocab_size * rows * CHUNKED_LOGIT_BYTES, shape.vocab_size * heldout - activations)
    return shape.vocab_size * max(rows * LOGIT_BYTES[kind], heldout)


def _loss_of(shape: Shape, asked: str) -> str:
    """The loss that a family is trained with where `asked` is the usual one."""
    scales = shape.model_type.startswith(OWN_SCALE)
    other = asked == HEAD_LOSS and shape.model_type not in HEAD_LOSS_FAMILIES
    return "nll" if scales or other else asked


def _training_activations(shape: Shape, setup: TrainingSetup, kind: str) -> float:
    """Bytes of activations at the peak of a backward pass, unpacked and merged matrices included."""
    tokens = setup.per_device * setup.row_tokens
    activations = tokens * _layers_bytes(shape, kind, setup.checkpointing)
    if setup.checkpointing:
        activations += _inputs_bytes(shape, kind, tokens, backend=setup.backend)
    # One matrix at a time is unpacked to 16 bits from 4, and merged with its adapter for DoRA's norms.
    largest_matrix = max(inputs * outputs for inputs, outputs in shape.linears().values())
    if setup.precision == "4bit":
        activations += FULL_BYTES["16bit"] * largest_matrix
    if setup.trainable.method == "dora":
        activations += 2 * 4 * largest_matrix
    # With checkpointing one layer at a time keeps what its backward pass needs.
    held = 4 * summed(shape, setup.trainable, "held")
    return activations + (held / shape.layers if setup.checkpointing else held)


def weight_bytes(shape: Shape, precision: str, *, backend: str, kind: str = "half") -> float:
    """Bytes of the frozen base, computed in `kind`; `backend`: unsloth, trl or scoring.

    In 4 bits only the layers' matrices are quantised. PEFT's preparation for the trl backend turns
    the rest (embeddings, head, norms) into float32; unsloth leaves it in 16 bits, scoring in `kind`.
    """
    in_float32 = kind == "fp32" and backend != "unsloth"
    if precision != "4bit":
        return (4 if in_float32 else FULL_BYTES[precision]) * shape.parameters()
    unquantised = shape.parameters() - shape.linear_parameters()
    unquantised_bytes = 4 if in_float32 or backend == "trl" else 2
    return FOUR_BIT_BYTES * shape.linear_parameters() + unquantised_bytes * unquantised


def kept_while_merged(shape: Shape, trainable: Trainable, *, precision: str, kind: str) -> float:
    """Bytes of the base's own weights that are kept while an adapter is merged into them (attached_adapters.merged)."""
    if kind != "fp32" or precision == "4bit":
        return 0.0
    return 4 * merged_parameters(shape, trainable)


def computed_in(shape: Shape, compute_dtype: str) -> str:
    """ "fp32" or "half": the arithmetic in effect, which is fp32 if fp16 would overflow."""
    if compute_dtype == "fp16" and overflows_float16(shape.model_type):
        return "fp32"
    return "fp32" if compute_dtype == "fp32" else "half"


def heldout_tokens(shape: Shape, max_length_tokens: int, device: str) -> int:
    """Largest number of tokens in one pass over held-out rows, as training and scoring bound it."""
    return max(max_length_tokens, largest_pass(device, vocabulary=shape.vocab_size))


def _layers_bytes(shape: Shape, kind: str, checkpointing: bool) -> float:
    """Bytes per token of a layer at work and, without checkpointing, of what all others keep for later."""
    # Wide heads (Gemma's are wider than its hidden size) count in place of the hidden size.
    sizes = shape.intermediate_size, max(shape.hidden_size, shape.heads * shape.head_dim)
    working = sum(size * number for size, number in zip(sizes, LAYER_BYTES[kind], strict=True))
    if checkpointing:
        return working
    kept = sum(size * number for size, number in zip(sizes, KEPT_BYTES[kind], strict=True))
    return working + (shape.layers - 1) * kept


def _inputs_bytes(shape: Shape, kind: str, tokens: int, *, backend: str) -> float:
    """Bytes on the GPU of the layers' inputs, which checkpointing keeps to compute the layers again."""
    number_bytes = 2 if backend == "unsloth" and kind == "half" else 4
    one = number_bytes * tokens * shape.hidden_size
    if backend == "unsloth" and one > OFFLOADED_FROM_BYTES:
        return INPUTS_NOT_OFFLOADED * one
    return one * shape.layers
