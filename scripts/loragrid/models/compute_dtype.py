"""The dtype that a loaded model computes in, apart from the one in which its weights are stored."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Those in which a merged model can be stored.
DTYPES = ("bfloat16", "float16", "float32")


def compute_in(model: "PreTrainedModel", dtype: str | None) -> "PreTrainedModel":
    """The model computing in `dtype` ("float32") with the values that its weights have; as it is for None.

    4-bit weights stay as they are and are computed with in `dtype`.
    """
    import torch

    if dtype is None:
        return model
    wanted = getattr(torch, dtype)
    for tensor in (*model.parameters(), *model.buffers()):
        # Packed 4-bit weights are whole numbers.
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(wanted)
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = wanted
    return model
