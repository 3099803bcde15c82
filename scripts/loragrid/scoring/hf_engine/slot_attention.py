"""The attention of a model whose keys and values are in a `SlotCache`, and whether a model is right with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from loragrid.models.passes.padding_free import LAYER_TYPES
from loragrid.models.passes.row_losses import network_of
from loragrid.scoring.hf_engine.slot_cache import SlotCache

if TYPE_CHECKING:
    import torch

# Two rows of small token ids, which any vocabulary has, with the same first one.
PROBE = ([1, 5, 2, 7, 3, 6], [1, 3, 7, 2])
# Largest relative difference of logits that is rounding, in float32 and in 16 and 4 bits.
FLOAT32_TOLERANCE, HALF_TOLERANCE = 1e-4, 0.05
# Rows without meaning may enlarge it: one of the two in SmolLM2-135M, in float32, differs by 5e-4, the other by 5e-7.
ENLARGED = 0.01
SLOTS = "slots"  # the name under which transformers knows `slot_attention`


def slot_attention(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: None,
    *,
    slot_cache: SlotCache | None = None,
    **more: Any,
) -> tuple["torch.Tensor", None]:
    """The attention of a `SlotCache`; transformers calls it by name.

    Raises `RuntimeError` for a model that does not pass what this needs.
    """
    window = more.get("sliding_window")
    has_window = getattr(module.config, "sliding_window", None) and getattr(module.config, "use_sliding_window", True)
    if slot_cache is None or attention_mask is not None or (has_window and "sliding_window" not in more):
        raise RuntimeError(f"{type(module).__name__} does not tell its attention what a slot cache needs")
    if more.get("position_bias") is not None:
        raise RuntimeError(f"{type(module).__name__} has a bias of positions")
    scale = more.get("scaling") or query.shape[-1] ** -0.5
    return slot_cache.attend(module.layer_idx, (query, key, value), scale=scale, window=window), None


@contextmanager
def slots_in_use(model: Any) -> Iterator[None]:
    """Within the block the model's attention is `slot_attention`."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    network = network_of(model)
    before = network.config.get_text_config()._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(SLOTS, slot_attention)
    network.set_attn_implementation(SLOTS)
    try:
        yield
    finally:
        network.set_attn_implementation(before)


def supports_slots(model: Any) -> bool:
    """Whether the model computes with a `SlotCache` what it computes by itself, tried on two short rows."""
    import torch

    network = network_of(model)
    config = network.config.get_text_config()
    if config._attn_implementation != "sdpa" or not set(getattr(config, "layer_types", None) or ()) <= LAYER_TYPES:
        return False
    with torch.inference_mode():
        expected = [
            model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits[0, -1] for row in PROBE
        ]
    try:
        with slots_in_use(model):
            cache = SlotCache(model, rows=2, capacity=len(PROBE[0]))
            cache.read_prefix(PROBE[0][:1])
            cache.read([row[1:-1] for row in PROBE])
            found = cache.write([row[-1] for row in PROBE])
    except Exception:
        # Each architecture raises its own errors for arguments and shapes that it does not expect.
        return False
    differences = [float((one - other).norm() / other.norm()) for one, other in zip(found, expected, strict=True)]
    # False for NaN.
    if model.dtype != torch.float32:
        return all(difference <= HALF_TOLERANCE for difference in differences)
    return min(differences) <= FLOAT32_TOLERANCE and all(difference <= ENLARGED for difference in differences)
