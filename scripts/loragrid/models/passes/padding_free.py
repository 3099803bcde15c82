"""Passes on a CPU without padding: a batch is one row, and attention takes sample by sample.

On a CPU padding costs as much as tokens do: 14 % of the demo's positions at two rows a batch, a
third at eight. A mask over the whole row would cost the square of its length instead. Flash
Attention's variable-length kernels do the same on GPUs that have them. The results are those of a
padded batch up to rounding (tests/training/test_padding_free.py).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# The name under which transformers knows `per_sample_attention`.
ATTENTION = "per_sample"
# Layers of other types mix tokens along the row, a convolution for example.
LAYER_TYPES = {"full_attention", "sliding_attention"}
# Two samples of small token ids, which any vocabulary has.
PROBE = ([1, 5, 2, 7, 3, 6], [1, 3, 7, 2])
# Largest relative difference of the probe's losses that is rounding; 16 and 4 bits round more.
FLOAT32_TOLERANCE = 1e-4
HALF_TOLERANCE = 0.05


def enable_padding_free(model: "PreTrainedModel") -> None:
    """Switch the model to attention by sample if it supports that; otherwise leave it as it is.

    It is tried on two samples: their loss in one row must be the loss of each alone.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if not _may_support(model):
        return
    separate = _probe_loss(model, [[sample] for sample in PROBE])
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, per_sample_attention)
    model.set_attn_implementation(ATTENTION)
    try:
        together = _probe_loss(model, [list(PROBE)])
    except Exception:
        # Each architecture raises its own errors for arguments and shapes that it does not expect.
        together = math.inf
    tolerance = FLOAT32_TOLERANCE if str(model.dtype) == "torch.float32" else HALF_TOLERANCE
    # Negated, so that NaN counts as different.
    if not abs(together - separate) <= tolerance * separate:
        model.set_attn_implementation("sdpa")


def is_padding_free(model: "PreTrainedModel") -> bool:
    """Whether `enable_padding_free` found that the model supports it."""
    return model.config.get_text_config()._attn_implementation == ATTENTION


@contextmanager
def without_padding(model: "PreTrainedModel") -> Iterator[None]:
    """Within the block, `row_losses` of the model takes no padding on a CPU, as in training."""
    before = model.config.get_text_config()._attn_implementation
    if model.device.type == "cpu":
        enable_padding_free(model)
    try:
        yield
    finally:
        # Generation and lm-eval pass several rows at once, which attention by sample refuses.
        if is_padding_free(model):
            model.set_attn_implementation(before)


def _may_support(model: "PreTrainedModel") -> bool:
    """False for a model that mixes tokens otherwise, which the probe may miss in few bits."""
    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa" or model._is_stateful:
        return False
    return set(getattr(config, "layer_types", None) or ()) <= LAYER_TYPES


def _probe_loss(model: "PreTrainedModel", rows: list[list[list[int]]]) -> float:
    """Mean loss of the samples, nats per token; each of `rows` is one pass over its samples."""
    import torch

    total, count = 0.0, 0
    for samples in rows:
        ids, labels, positions = [], [], []
        for sample in samples:
            ids += sample
            # A third of the probe without loss, as in the prompts of real rows.
            labels += [-100, -100, *sample[2:]]
            positions += range(len(sample))
        inputs = {
            "input_ids": torch.tensor([ids], device=model.device),
            "labels": torch.tensor([labels], device=model.device),
        }
        if len(samples) > 1:
            inputs["position_ids"] = torch.tensor([positions])
            inputs |= loss_only(inputs["labels"])
        with torch.no_grad():
            loss = model(**inputs, use_cache=False).loss.item()
        tokens = sum(label != -100 for label in labels)
        total, count = total + loss * tokens, count + tokens
    return total / count


def per_sample_attention(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: None,
    *,
    position_ids: "torch.Tensor | None" = None,
    **more: Any,
) -> tuple["torch.Tensor", None]:
    """transformers' causal `sdpa` on each sample of the only row; transformers calls it by name.

    Shapes: (1, heads, tokens, head size); the result is (1, tokens, heads, head size). A sample
    begins where `position_ids`, (1, tokens), is 0. Raises `RuntimeError` for a model that does not
    pass what this needs: computing on would let samples see each other.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    model = type(module).__name__
    if position_ids is None or query.shape[0] != 1 or attention_mask is not None:
        raise RuntimeError(f"{model} does not tell its attention where samples begin")
    if "sliding_window" not in more and _has_window(module.config):
        raise RuntimeError(f"{model} does not tell its attention the sliding window")
    sliding_window = more.pop("sliding_window", None)
    lengths = _lengths(position_ids)
    samples = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    parts = []
    for q, k, v in samples:
        band = _band(q.shape[2], sliding_window)
        parts.append(sdpa_attention_forward(module, q, k, v, band, is_causal=True, **more)[0])
    return torch.cat(parts, dim=1), None


def _has_window(config: Any) -> bool:
    if not getattr(config, "sliding_window", None):
        return False
    return getattr(config, "use_sliding_window", True)


def _lengths(position_ids: "torch.Tensor") -> list[int]:
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    ends = [*starts[1:], position_ids.shape[1]]
    return [end - start for start, end in zip(starts, ends, strict=True)]


def _band(length: int, sliding_window: int | None) -> "torch.Tensor | None":
    """Mask of a sliding layer: each token sees itself and the `sliding_window` - 1 before it."""
    import torch

    # Then the window covers the sample, and causal attention alone does the same.
    if sliding_window is None or length <= sliding_window:
        return None
    return torch.ones(length, length, dtype=torch.bool).tril().triu(1 - sliding_window)


def loss_only(labels: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """Model arguments that compute logits and loss of the only row where a label has loss.

    Logits of other positions would be computed, over the whole vocabulary, and thrown away.
    """
    # The token before a label predicts it.
    places = (labels[0, 1:] != -100).nonzero()[:, 0]
    return {"logits_to_keep": places, "shift_labels": labels[:, places + 1]}
