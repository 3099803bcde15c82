"""Floating-point operations of training and of scoring, per token.

A multiply-add is two operations. A forward pass therefore costs 2 per weight of a matrix product,
and a backward pass 2 for the gradient of the inputs and 2 for the gradient of the weights (Kaplan
et al. 2020, https://arxiv.org/abs/2001.08361, section 2.1). A frozen base needs no gradients of
weights: 4 instead of 6. What adapters need is in adapter_costs.py. Gradient checkpointing
repeats the layers' forward pass (Chen et al. 2016, https://arxiv.org/abs/1604.06174). Attention is
counted as in PaLM (Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B), halved
because a token attends only to earlier ones. Norms, activations, the softmax and the optimizer are
left out; they are below 1 % for these models.
"""

from loragrid.models.shape import Shape
from loragrid.models.trained_weights import Trainable, summed


def forward_per_token(shape: Shape, *, row_tokens: float) -> float:
    """Operations per token of a forward pass of the bare base, in rows of `row_tokens` tokens."""
    return 2 * (_layers(shape) + _head(shape)) + _attention(shape, row_tokens)


def training_per_token(
    shape: Shape, trainable: Trainable, *, row_tokens: float, checkpointing: bool
) -> dict[str, float]:
    """Operations per trained token by part.

    The parts are `base` (4 per weight, 6 if it is trained), `adapters`, `attention` and
    `recomputation`.
    """
    forward, backward = summed(shape, trainable, "forward"), summed(shape, trainable, "backward")
    layers, attention = _layers(shape), _attention(shape, row_tokens)
    recomputation = 0
    if checkpointing:
        recomputation = 2 * layers + forward + attention
    return {
        "base": (6 if trainable.method == "full" else 4) * (layers + _head(shape)),
        "adapters": forward + backward,
        # Both factors of each product need a gradient, frozen or not.
        "attention": 3 * attention,
        "recomputation": recomputation,
    }


def training_per_pass(shape: Shape, trainable: Trainable, *, checkpointing: bool) -> int:
    """Operations of a forward and a backward pass whatever their number of tokens, such as DoRA's weight norms."""
    forwards = 2 if checkpointing else 1
    return forwards * summed(shape, trainable, "forward_once") + summed(shape, trainable, "backward_once")


def _layers(shape: Shape) -> float:
    """Weights of all layers that a token passes through."""
    return shape.linear_parameters() + shape.active_expert_parameters()


def _head(shape: Shape) -> int:
    """Weights of the output head: a matrix product, tied or not. An embedding is only looked up."""
    return shape.vocab_size * shape.hidden_size


def _attention(shape: Shape, row_tokens: float) -> float:
    """Forward operations per token: queries times keys, weights times values, over tokens seen."""
    full, sliding = shape.full_attention_layers, shape.layers - shape.full_attention_layers
    window = row_tokens
    if shape.sliding_window is not None:
        window = min(row_tokens, shape.sliding_window)
    # In a row of n tokens with a window w, a token sees w - w²/2n of them on average (n/2 without a
    # window).
    seen = full * row_tokens / 2 + sliding * (window - window**2 / (2 * row_tokens))
    return 4 * shape.heads * shape.head_dim * seen
