"""Passes through a model of transformers in which rows that begin alike compute their beginning once.

Few-shot examples and instructions begin every prompt of a task, and the choices of a question share
all of it. What they share is computed for one row, and its keys and values are repeated.
"""

import copy
import inspect
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# A shorter prefix, or one that is a smaller part of all tokens, costs more calls than it saves.
LEAST_TOKENS, LEAST_SHARE = 16, 0.2


def passes_with_cache(model: Any) -> bool:
    """Whether a model's attention reaches all tokens and takes their `position_ids`, as `pass_through` needs."""
    # unsloth replaces the forward passes of all models by its own, which take other caches.
    if "unsloth" in sys.modules:
        return False
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = base.config.get_text_config()
    chunked = getattr(config, "attention_chunk_size", None) is not None
    placed = "position_ids" in inspect.signature(base.forward).parameters
    return placed and not chunked and not getattr(base, "_is_stateful", False)


def sees_all(model: Any, longest: int) -> bool:
    """Whether the attention of all layers reaches over rows of `longest` tokens.

    Padding comes between a prefix and the rest of a row, and a sliding window would count it.
    """
    return longest <= (getattr(model.config.get_text_config(), "sliding_window", None) or longest)


def worth_sharing(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens of all rows are computed once; 0 if that saves little."""
    if len(rows) < 2:
        return 0
    # Rows between the first and the last in alphabetical order share what those two share.
    first, last = min(rows), max(rows)
    length = next((at for at, (one, other) in enumerate(zip(first, last)) if one != other), min(map(len, rows)))
    saved = (len(rows) - 1) * length
    if length < LEAST_TOKENS or saved < LEAST_SHARE * sum(map(len, rows)):
        return 0
    return length


def empty_cache(model: Any) -> Any:
    """A cache without tokens."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config.get_text_config())


def cached_prefix(model: Any, ids: Sequence[int]) -> Any:
    """The cache of one row with these tokens."""
    cache = empty_cache(model)
    pass_through(model, [list(ids)], cache=cache, before=[[]], keep=1)
    return cache


def repeated(cache: Any, rows: Sequence[int]) -> Any:
    """A copy of a cache with these of its rows, in this order, each as often as it is named."""
    import torch

    selected = copy.copy(cache)
    selected.layers = [copy.copy(layer) for layer in cache.layers]  # selecting makes new tensors, the old ones stay
    device = next(layer.keys.device for layer in cache.layers if layer.get_seq_length())
    selected.batch_select_indices(torch.tensor(rows, device=device))
    return selected


def pass_through(
    model: Any, rows: Sequence[list[int]], *, cache: Any, before: Sequence[list[int]], keep: int
) -> tuple["torch.Tensor", list[list[int]]]:
    """Logits [rows, keep, vocabulary] of the last `keep` places, and the mask of all places after the pass.

    `rows` are padded on the left. `cache`: of what comes before, or None; `before`: its mask, per
    row a 1 for each token and a 0 for padding.
    """
    import torch

    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=model.device)
    masks = [[*past, *[0] * (longest - len(row)), *[1] * len(row)] for row, past in zip(rows, before, strict=True)]
    mask = torch.tensor(masks, device=model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -longest:]
    # Without this option a pass computes logits for every token.
    options = {"logits_to_keep": keep} if model._supports_logits_to_keep() else {}
    output = model(
        input_ids=ids,
        # Without a mask the attention takes its faster form.
        attention_mask=None if mask.all() else mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
        **options,
    )
    return output.logits[:, -keep:], masks
