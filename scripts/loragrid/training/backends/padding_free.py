"""Training on a CPU without padding: a batch is one row of samples, and attention takes them one by one.

Padding costs a CPU what tokens cost, and is 14 % of the demo's positions at two rows a batch, a third at eight; a mask over
the whole row would cost the square of its length. Flash Attention's variable-length kernels do the same on a GPU that has
them. The numbers are those of a padded batch but for rounding (tests/training/test_padding_free.py).
"""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

NAME = "per_sample"
ATTENTIONS = {"full_attention", "sliding_attention"}
# Two samples, a third without loss; of a vocabulary, however small.
PROBE = ([1, 5, 2, 7, 3, 6], [1, 3, 7, 2])
ROUNDING = {"torch.float32": 1e-4}
COARSE_ROUNDING = 0.05  # 16 and 4 bits


def enable_padding_free(model: "PreTrainedModel") -> None:
    """Let a model that allows it attend by sample; any other, such as one with a recurrent state, is left as it is.

    Whether it does is tried out on two samples: their loss in one row must be the one that each has alone.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if not _may_take(model):
        return
    alone = _probe(model, [[sample] for sample in PROBE])
    ALL_ATTENTION_FUNCTIONS.register(NAME, per_sample_attention)
    model.set_attn_implementation(NAME)
    try:
        together = _probe(model, [list(PROBE)])
    except Exception:  # whatever a model's code says of arguments and shapes that it does not know
        together = math.inf
    if not abs(together - alone) <= ROUNDING.get(str(model.dtype), COARSE_ROUNDING) * alone:
        model.set_attn_implementation("sdpa")


def is_padding_free(model: "PreTrainedModel") -> bool:
    """Whether `enable_padding_free` found that the model allows it."""
    return model.config.get_text_config()._attn_implementation == NAME


def _may_take(model: "PreTrainedModel") -> bool:
    """Not a model that mixes tokens in other ways than attention, which the probe might not see in few bits."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    return config._attn_implementation == "sdpa" and not model._is_stateful and kinds <= ATTENTIONS


def _probe(model: "PreTrainedModel", rows: list[list[list[int]]]) -> float:
    """Mean loss of the samples, nats per token, each of `rows` a pass of its own; two or more samples make one row."""
    import torch

    total, count = 0.0, 0
    for samples in rows:
        ids, labels, positions = [], [], []
        for sample in samples:
            ids += sample
            labels += [-100, -100, *sample[2:]]
            positions += range(len(sample))
        tensors = {
            name: torch.tensor([values], device=model.device)
            for name, values in (("input_ids", ids), ("labels", labels))
        }
        if len(samples) > 1:
            tensors |= {"position_ids": torch.tensor([positions]), **loss_only(tensors["labels"])}
        with torch.no_grad():
            loss = model(**tensors, use_cache=False).loss.item()
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
    """transformers' `sdpa` on each sample of the only row, causal; shapes (1, heads, tokens, head size), and (1, tokens,
    heads, head size) of what comes back. A sample begins where `position_ids` (1, tokens) are 0.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if position_ids is None or query.shape[0] != 1 or attention_mask is not None:
        raise RuntimeError(
            f"{type(module).__name__} does not tell its attention where samples begin: {NAME} cannot be used"
        )
    if "sliding_window" not in more and _has_window(module.config):
        raise RuntimeError(f"{type(module).__name__} does not tell its attention its window: {NAME} cannot be used")
    sliding_window = more.pop("sliding_window", None)
    lengths = _lengths(position_ids)
    parts = []
    for q, k, v in zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True):
        band = _band(q.shape[2], sliding_window)
        parts.append(sdpa_attention_forward(module, q, k, v, band, is_causal=True, **more)[0])
    return torch.cat(parts, dim=1), None


def _has_window(config: Any) -> bool:
    return bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True)


def _lengths(position_ids: "torch.Tensor") -> list[int]:
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    return [end - start for start, end in zip(starts, [*starts[1:], position_ids.shape[1]], strict=True)]


def _band(length: int, sliding_window: int | None) -> "torch.Tensor | None":
    """What a token of a sliding layer sees, itself and the `sliding_window` - 1 before it; None where that is all of them."""
    import torch

    if sliding_window is None or length <= sliding_window:
        return None
    return torch.ones(length, length, dtype=torch.bool).tril().triu(1 - sliding_window)


def loss_only(labels: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """Arguments that have the only row's logits and loss computed at the tokens whose successor carries loss, no others."""
    places = (labels[0, 1:] != -100).nonzero()[:, 0]
    return {"logits_to_keep": places, "shift_labels": labels[:, places + 1]}
