"""Floating-point operations of LoRA training and of scoring, per token.

A multiply-add is two operations, so a forward pass costs 2 per weight that takes part in a matrix product, and a backward
pass 2 for the gradient of its inputs and 2 for that of its weights (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361,
section 2.1). A frozen base needs no gradients of weights: 4 instead of 6. Adapters need all 6. Gradient checkpointing runs
the layers' forward pass once more (Chen et al. 2016, https://arxiv.org/abs/1604.06174). Attention is counted as in PaLM
(Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B), halved since a token attends to those before it.
Norms, activations, the softmax and the optimizer are left out: below one part in a hundred for these models.
"""

from collections.abc import Sequence

from loragrid.models.shape import Shape


def forward_per_token(shape: Shape, *, row_tokens: float) -> float:
    """Of the base alone, for a token of a row of that length."""
    return 2 * (shape.linear_parameters() + _head(shape)) + _attention(shape, row_tokens)


def training_per_token(
    shape: Shape, *, rank: int, target_modules: str | Sequence[str], row_tokens: float, checkpointing: bool
) -> dict[str, float]:
    """By part: `base` (4 per weight), `adapters` (6), `attention` and `recomputation`."""
    adapters = sum(shape.adapter_tensors(rank=rank, target_modules=target_modules))
    layers, attention = shape.linear_parameters(), _attention(shape, row_tokens)
    return {
        "base": 4 * (layers + _head(shape)),
        "adapters": 6 * adapters,
        # Both factors of each product need a gradient, frozen or not.
        "attention": 3 * attention,
        "recomputation": 2 * (layers + adapters) + attention if checkpointing else 0,
    }


def _head(shape: Shape) -> int:
    """The output head takes part in a product, tied or not; looking an embedding up does not."""
    return shape.vocab_size * shape.hidden_size


def _attention(shape: Shape, row_tokens: float) -> float:
    """Forward: queries with keys, and weights with values, over the mean number of tokens seen."""
    full, sliding = shape.full_attention_layers, shape.layers - shape.full_attention_layers
    window = row_tokens if shape.sliding_window is None else min(row_tokens, shape.sliding_window)
    # Over a row of n tokens with a window w, a token sees w - w²/2n of them on average (n/2 without a window).
    seen = full * row_tokens / 2 + sliding * (window - window**2 / (2 * row_tokens))
    return 4 * shape.heads * shape.head_dim * seen
