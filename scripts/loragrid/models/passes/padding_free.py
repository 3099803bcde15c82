"""Passes without padding: a batch is one row, and attention stays within each sample (sample_attention.py).

On a CPU padding costs as much as tokens do: 14 % of the demo's positions at two rows a batch, a
third at eight. A mask over the whole row would cost the square of its length instead. The results are
those of a padded batch up to rounding (tests/models/passes/test_padding_free.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from loragrid.models.passes.sample_attention import PER_SAMPLE, VARLEN, register_attentions, supported_attentions

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

HALF_DTYPES = {"bfloat16": "bf16", "float16": "fp16"}  # torch's names and the study file's
# Layers of other types mix tokens along the row, a convolution for example.
LAYER_TYPES = {"full_attention", "sliding_attention"}
# Two samples of small token ids, which any vocabulary has.
PROBE = ([1, 5, 2, 7, 3, 6], [1, 3, 7, 2])
# Largest relative difference of the probe's losses that is rounding; 16 and 4 bits round more.
FLOAT32_TOLERANCE = 1e-4
HALF_TOLERANCE = 0.05


def enable_padding_free(model: "PreTrainedModel", *, compute_dtype: str | None = None) -> None:
    """Switch the model to attention within samples if it supports that; otherwise leave it as it is.

    It is tried on two samples: their loss in one row must be the loss of each alone. `compute_dtype`: "fp32", "bf16"
    or "fp16", by default that of the weights.
    """
    if not _may_support(model):
        return
    dtype = compute_dtype or HALF_DTYPES.get(str(model.dtype).removeprefix("torch."), "fp32")
    separate = _probe_loss(model, [[sample] for sample in PROBE])
    register_attentions()
    for attention in supported_attentions(model, dtype):
        model.set_attn_implementation(attention)
        if _passes_probe(model, separate, attention=attention, dtype=dtype):
            return
    model.set_attn_implementation("sdpa")


def _passes_probe(model: "PreTrainedModel", separate: float, *, attention: str, dtype: str) -> bool:
    """Whether the loss of the probe in one row is `separate`, that of its samples alone."""
    in_half = attention == VARLEN
    try:
        with _autocast(model, dtype) if in_half else nullcontext():
            together = _probe_loss(model, [list(PROBE)])
    except Exception:
        # Each architecture raises its own errors for arguments and shapes that it does not expect.
        return False
    exact = str(model.dtype) == "torch.float32" and not in_half
    tolerance = FLOAT32_TOLERANCE if exact else HALF_TOLERANCE
    # False for NaN.
    return abs(together - separate) <= tolerance * separate


def _autocast(model: "PreTrainedModel", dtype: str) -> Any:
    """As in training: the kernel takes 16 bits, and the weights may have 32."""
    import torch

    return torch.autocast(model.device.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[dtype])


def is_padding_free(model: "PreTrainedModel") -> bool:
    """Whether `enable_padding_free` found that the model supports it."""
    return model.config.get_text_config()._attn_implementation in {PER_SAMPLE, VARLEN}


@contextmanager
def without_padding(model: "PreTrainedModel") -> Iterator[None]:
    """Within the block, `row_losses` of the model takes no padding, as in training."""
    before = model.config.get_text_config()._attn_implementation
    enable_padding_free(model)
    try:
        yield
    finally:
        # Generation and lm-eval pass several rows at once, which these attentions refuse.
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
            inputs["position_ids"] = torch.tensor([positions], device=model.device)
            inputs |= loss_only(inputs["labels"])
        with torch.no_grad():
            loss = model(**inputs, use_cache=False).loss.item()
        tokens = sum(label != -100 for label in labels)
        total, count = total + loss * tokens, count + tokens
    return total / count


def loss_only(labels: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """Model arguments that compute logits and loss of the only row where a label has loss.

    Logits of other positions would be computed, over the whole vocabulary, and thrown away.
    """
    # The token before a label predicts it.
    places = (labels[0, 1:] != -100).nonzero()[:, 0]
    return {"logits_to_keep": places, "shift_labels": labels[:, places + 1]}
