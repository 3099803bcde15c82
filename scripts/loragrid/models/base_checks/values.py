"""Whether the weights in safetensors files are numbers that a network can compute with.

A NaN or an infinity reaches every output and a matrix of zeros stops every signal, but transformers loads both without
a warning. The data stage reads the weights before anything is trained, in 0.4 s of CPU time a billion, and again only
if a file has changed.
"""

from collections.abc import Mapping
from pathlib import Path

from loragrid.errors import UserError, first_line
from loragrid.models.adapter_shapes import tensor_header
from loragrid.models.weight_files import weight_files
from loragrid.runtime.file_digests import kept_result


def check_values(folder: Path, *, tied: Mapping[str, str]) -> None:
    """Raise `UserError` for weights that are not finite, a matrix of zeros, or tied tensors that differ.

    `tied`: names of two tensors that are one by config.json.
    """
    files = weight_files(folder)
    for file in files:
        problem = kept_result(file, "values", _problem)
        if problem:
            raise UserError(f"{file}: {problem}. Fix: download or copy it again, or give another model.")
    places = {name: file for file in files for name in tensor_header(file)}
    for one, other in tied.items():
        if one in places and other in places and not _equal(places, one, other):
            # transformers would use both with a warning, vLLM only one of them.
            raise UserError(
                f"model folder {folder}: {one} differs from {other}, but config.json says that they are one tensor. "
                f"Fix: set tie_word_embeddings to false in config.json, or remove {one} from the weights."
            )


def check_finite(file: Path) -> None:
    """Raise `UserError` for weights of an adapter that are not finite; a matrix of zeros is how an adapter starts."""
    problem = _problem(file, zeros=True)
    if problem:
        raise UserError(f"{file}: {problem}. Fix: copy the adapter again.")


def _problem(file: Path, *, zeros: bool = False) -> str:
    """What is wrong with the first faulty tensor; empty if there is none. `zeros`: a matrix of zeros is allowed."""
    import torch
    from safetensors import SafetensorError, safe_open

    tensor_header(file)  # raises the usual message for a broken file
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                values = tensors.get_tensor(name)
                if not values.is_floating_point() or not values.numel():
                    continue
                if values.element_size() == 1:
                    values = values.to(torch.bfloat16)  # PyTorch has no minimum of float8
                low, high = (value.item() for value in torch.aminmax(values))  # NaN if one value is
                if not (abs(low) < float("inf") and abs(high) < float("inf")):
                    return f"{name} holds values that are not finite (NaN or infinity)"
                if low == high == 0 and values.ndim > 1 and "bias" not in name and not zeros:
                    return f"{name} holds nothing but zeros"
    except SafetensorError as error:
        raise UserError(f"{file}: not a safetensors file ({first_line(error)}). Fix: copy it again.") from None
    return ""


def _equal(places: Mapping[str, Path], one: str, other: str) -> bool:
    """Whether two tensors hold the same values, compared in the dtype of the first."""
    import torch
    from safetensors import safe_open

    found = []
    for name in (one, other):
        with safe_open(places[name], framework="pt") as tensors:
            found.append(tensors.get_tensor(name))
    return torch.equal(found[0], found[1].to(found[0].dtype))
