"""Training on a CPU without padding: a batch is one row of samples, and attention takes them one by one.

Padding costs a CPU what tokens cost, a third of the demo's time; a mask over the whole row would cost the square of its
length. Flash Attention's variable-length kernels do the same on a GPU that has them. The numbers are those of a padded batch
but for rounding (tests/test_by_sample.py).
"""

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

NAME = "by_sample"
ATTENTIONS = {"full_attention", "sliding_attention"}


def take_samples_one_by_one(model: "PreTrainedModel") -> None:
    """Let a model that allows it attend by sample; any other, such as one with a recurrent state, is left as it is."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if _only_attention_mixes_tokens(model):
        ALL_ATTENTION_FUNCTIONS.register(NAME, attend_by_sample)
        model.set_attn_implementation(NAME)


def takes_samples_one_by_one(model: "PreTrainedModel") -> bool:
    """Whether `take_samples_one_by_one` found that the model allows it."""
    return model.config.get_text_config()._attn_implementation == NAME


def _only_attention_mixes_tokens(model: "PreTrainedModel") -> bool:
    config = model.config.get_text_config()
    return (
        config._attn_implementation == "sdpa"
        and bool(
            getattr(config, "rope_parameters", None)
        )  # positions begin anew by position_ids, not by place in the row
        and not model._is_stateful
        and set(getattr(config, "layer_types", None) or ()) <= ATTENTIONS
        and "logits_to_keep" in inspect.signature(model.forward).parameters
    )


def attend_by_sample(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: None,
    *,
    position_ids: "torch.Tensor | None" = None,
    sliding_window: int | None = None,
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
    lengths = _lengths(position_ids)
    parts = []
    for q, k, v in zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True):
        band = _band(q.shape[2], sliding_window)
        parts.append(sdpa_attention_forward(module, q, k, v, band, is_causal=True, **more)[0])
    return torch.cat(parts, dim=1), None


def _lengths(position_ids: "torch.Tensor") -> list[int]:
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    return [end - start for start, end in zip(starts, [*starts[1:], position_ids.shape[1]], strict=True)]


def _band(length: int, sliding_window: int | None) -> "torch.Tensor | None":
    """What a token of a sliding layer sees, itself and the `sliding_window` - 1 before it; None where that is all of them."""
    import torch

    if sliding_window is None or length <= sliding_window:
        return None
    return torch.ones(length, length, dtype=torch.bool).tril().triu(1 - sliding_window)


def where_loss_is(labels: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """Arguments that have the only row's logits and loss computed at the tokens whose successor carries loss, no others."""
    places = (labels[0, 1:] != -100).nonzero()[:, 0]
    return {"logits_to_keep": places, "shift_labels": labels[:, places + 1]}
