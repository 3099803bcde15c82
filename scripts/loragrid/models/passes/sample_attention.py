"""Attention within each sample of a batch that is one row: by a kernel of variable lengths, or sample by sample.

transformers calls both functions by name. torch's `varlen_attn` is FlashAttention 2 (Dao, 2023), which needs a GPU
from compute capability 8.0 on and 16-bit tensors. Elsewhere, as on a CPU or a T4, each sample gets a call of its own.
"""

import itertools
import weakref
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# The names under which transformers knows `per_sample_attention` and `varlen_attention`.
PER_SAMPLE, VARLEN = "per_sample", "varlen"
KERNEL_DTYPES = ("bf16", "fp16")
# Limits of the kernel in torch 2.13: the oldest card, and the size of a head.
LEAST_CAPABILITY, LARGEST_HEAD, HEAD_MULTIPLE = (8, 0), 256, 8
# On these cards the backward pass has too little shared memory for heads of 193 to 224.
SMALL_SHARED_MEMORY = {(8, 6), (8, 9), (12, 0), (12, 1)}


@dataclass(frozen=True)
class Samples:
    """Where the samples of a row are: their lengths, the bounds between them as an int32 tensor, and the longest."""

    lengths: list[int]
    bounds: "torch.Tensor"
    longest: int


# The samples of the latest batch, with its position ids and how often those had been written to.
_latest: tuple[Any, int, Samples] | None = None


def has_kernel(*, capability: tuple[int, int], dtype: str, head_size: int, available: bool) -> bool:
    """Whether training on a GPU can use `varlen_attention`.

    `capability`: of the card; `dtype`: what training computes in ("bf16", "fp16" or "fp32"); `available`: this torch
    has the kernel.
    """
    if not available or capability < LEAST_CAPABILITY or dtype not in KERNEL_DTYPES:
        return False
    if head_size > LARGEST_HEAD or head_size % HEAD_MULTIPLE:
        return False
    return not (192 < head_size <= 224 and capability in SMALL_SHARED_MEMORY)


def supported_attentions(model: "PreTrainedModel", dtype: str) -> tuple[str, ...]:
    """The attentions to try on this model where it is, the fastest first; `dtype`: what training computes in."""
    import torch

    config = model.config.get_text_config()
    # The kernel has no dropout of attention weights.
    if model.device.type != "cuda" or getattr(config, "attention_dropout", 0.0):
        return (PER_SAMPLE,)
    kernel = has_kernel(
        capability=torch.cuda.get_device_capability(model.device),
        dtype=dtype,
        head_size=_head_size(config),
        # A torch for CUDA may have been built without it.
        available=find_spec("torch.nn.attention.varlen") is not None
        and torch.backends.cuda.is_flash_attention_available(),
    )
    return (VARLEN, PER_SAMPLE) if kernel else (PER_SAMPLE,)


def register_attentions() -> None:
    """Make both attentions known to transformers."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(PER_SAMPLE, per_sample_attention)
    ALL_ATTENTION_FUNCTIONS.register(VARLEN, varlen_attention)


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

    _check_call(module, query, attention_mask, position_ids, more)
    sliding_window = more.pop("sliding_window", None)
    lengths = samples_of(position_ids).lengths
    samples = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    parts = []
    for q, k, v in samples:
        band = _band(q.shape[2], sliding_window, device=query.device)
        parts.append(sdpa_attention_forward(module, q, k, v, band, is_causal=True, **more)[0])
    return torch.cat(parts, dim=1), None


def varlen_attention(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: None,
    *,
    position_ids: "torch.Tensor | None" = None,
    **more: Any,
) -> tuple["torch.Tensor", None]:
    """The same as `per_sample_attention` by one call of torch's kernel of variable lengths.

    A pass in float32 (held-out losses of a 4-bit base) and one with dropout take `per_sample_attention`.
    """
    from torch.nn.attention.varlen import varlen_attn

    _check_call(module, query, attention_mask, position_ids, more)
    states = _as_autocast(query, key, value)
    if not _in_kernel_dtype(states) or more.get("dropout"):
        return per_sample_attention(module, query, key, value, attention_mask, position_ids=position_ids, **more)
    samples = samples_of(position_ids)
    left = -1
    sliding_window = more.get("sliding_window")
    if sliding_window is not None and samples.longest > sliding_window:
        # A window of n tokens is the token itself and the n - 1 before it.
        left = sliding_window - 1
    # (1, heads, tokens, head size) to (tokens, heads, head size)
    q, k, v = (one[0].transpose(0, 1) for one in states)
    found = varlen_attn(
        q,
        k,
        v,
        samples.bounds,
        samples.bounds,
        samples.longest,
        samples.longest,
        scale=more.get("scaling"),
        window_size=(left, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return found[None], None


def samples_of(position_ids: "torch.Tensor") -> Samples:
    """The samples of a row, read from its device once: all layers of a pass are given the same tensor.

    `position_ids`: (1, tokens), 0 where a sample begins.
    """
    global _latest
    # Tensors of inference mode do not count how often they were written to.
    version = -1 if position_ids.is_inference() else position_ids._version
    if _latest is not None and _latest[0]() is position_ids and _latest[1] == version:
        return _latest[2]
    samples = _read_samples(position_ids)
    # A weak reference: the tensor's memory is the next batch's.
    _latest = weakref.ref(position_ids), version, samples
    return samples


def _read_samples(position_ids: "torch.Tensor") -> Samples:
    import torch

    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    bounds = [*starts, position_ids.shape[1]]
    lengths = [end - start for start, end in itertools.pairwise(bounds)]
    return Samples(lengths, torch.tensor(bounds, dtype=torch.int32, device=position_ids.device), max(lengths))


def _check_call(module: Any, query: "torch.Tensor", mask: Any, position_ids: Any, more: dict[str, Any]) -> None:
    model = type(module).__name__
    if position_ids is None or query.shape[0] != 1 or mask is not None:
        raise RuntimeError(f"{model} does not tell its attention where samples begin")
    if "sliding_window" not in more and _has_window(module.config):
        raise RuntimeError(f"{model} does not tell its attention the sliding window")


def _has_window(config: Any) -> bool:
    if not getattr(config, "sliding_window", None):
        return False
    return getattr(config, "use_sliding_window", True)


def _head_size(config: Any) -> int:
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # Gemma 4 has larger heads in the layers without a window.
    return max(size, getattr(config, "global_head_dim", None) or 0)


def _as_autocast(*states: "torch.Tensor") -> tuple["torch.Tensor", ...]:
    """The tensors as autocast would give them to torch's own attention; it does not know this kernel."""
    import torch

    device = states[0].device.type
    if not torch.is_autocast_enabled(device):
        return states
    dtype = torch.get_autocast_dtype(device)
    return tuple(one.to(dtype) for one in states)


def _in_kernel_dtype(states: tuple["torch.Tensor", ...]) -> bool:
    import torch

    dtypes = {one.dtype for one in states}
    return len(dtypes) == 1 and dtypes <= {torch.float16, torch.bfloat16}


def _band(length: int, sliding_window: int | None, *, device: Any) -> "torch.Tensor | None":
    """Mask of a sliding layer: each token sees itself and the `sliding_window` - 1 before it."""
    import torch

    # Then the window covers the sample, and causal attention alone does the same.
    if sliding_window is None or length <= sliding_window:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - sliding_window)
