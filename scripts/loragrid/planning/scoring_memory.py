"""Peak memory of scoring by part, predicted from shapes. Imports no torch."""

from dataclasses import dataclass, replace

from loragrid.models.batch_sizes import CHOICE_LOGITS_PER_PASS, answers_on_cpu
from loragrid.models.shape import Shape
from loragrid.models.trained_weights import Trainable, loaded_parameters
from loragrid.planning.memory_model import (
    CONTEXT_MIB,
    FRAGMENTATION,
    LOGIT_BYTES_FORWARD,
    MIB,
    Memory,
    computed_in,
    heldout_tokens,
    kept_while_merged,
    weight_bytes,
)
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study

# ASSUME: a scored choice and its question have at most 256 tokens, an answer and its question 2048.
CHOICE_TOKENS, ANSWER_TOKENS = 256, 2048
SCORE_LOGIT_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class ScoringSetup:
    """Settings of scoring that determine its memory.

    `trainable`: what was trained; `device`: cuda or cpu.
    """

    precision: str
    trainable: Trainable
    batch_size: int
    max_length_tokens: int
    compute_dtype: str
    answer_tokens: int = ANSWER_TOKENS
    device: str = "cuda"


def scoring_memory(shape: Shape, setup: ScoringSetup) -> Memory:
    """Memory of scoring: the largest of a held-out pass, a batch of choices and one of answers."""
    kind = computed_in(shape, setup.compute_dtype)
    batch = setup.batch_size
    heldout = heldout_tokens(shape, setup.max_length_tokens, setup.device)
    choices_per_pass = max(CHOICE_TOKENS, CHOICE_LOGITS_PER_PASS // shape.vocab_size)
    choices = min(batch * CHOICE_TOKENS, choices_per_pass)
    # Cached numbers per token: a key and a value in every layer.
    cached = 2 * shape.layers * shape.kv_heads * shape.head_dim
    row_cache = setup.answer_tokens * cached * (4 if kind == "fp32" else 2)
    rows = answers_on_cpu(batch, row_bytes=row_cache) if setup.device == "cpu" else batch
    per_token = 4 * (2 * shape.intermediate_size + 4 * shape.hidden_size)
    activations_and_logits = (
        (per_token * heldout, heldout * shape.vocab_size * LOGIT_BYTES_FORWARD[kind]),
        (per_token * choices, choices * shape.vocab_size * SCORE_LOGIT_BYTES),
        # While answers are written, only the last token of each has logits.
        (per_token * batch * CHOICE_TOKENS + rows * row_cache, rows * shape.vocab_size * SCORE_LOGIT_BYTES),
    )
    activations, logits = max(activations_and_logits, key=sum)
    weights = weight_bytes(shape, setup.precision, backend="scoring", kind=kind)
    return Memory(
        weights=(weights + kept_while_merged(shape, setup.trainable, precision=setup.precision, kind=kind)) / MIB,
        adapters=4 * loaded_parameters(shape, setup.trainable) / MIB,
        gradients=0.0,
        optimizer=0.0,
        activations=activations / MIB,
        logits=logits / MIB,
        overhead=CONTEXT_MIB + FRAGMENTATION * (activations + logits) / MIB,
    )


def predict_scoring(study: Study, cell: Cell, shape: Shape, *, bf16: bool, on_cpu: bool = False) -> Memory:
    """`scoring_memory` of a cell's adapter on its base; `bf16`: the GPU computes in bfloat16."""
    setup = ScoringSetup(
        precision=study.scored_entry(cell).precision,
        trainable=Trainable.of(cell.settings),
        batch_size=study.scoring.batch_size,
        # The held-out rows are as long as those of the base case.
        max_length_tokens=study.base_case.max_length_tokens,
        compute_dtype="bf16" if bf16 else "fp16",
    )
    if not on_cpu:
        return scoring_memory(shape, setup)
    dtype = "fp32" if setup.precision == "32bit" else "bf16"
    memory = scoring_memory(shape, replace(setup, compute_dtype=dtype, device="cpu"))
    return replace(memory, overhead=memory.overhead - CONTEXT_MIB)
