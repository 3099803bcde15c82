"""The base that a resident worker holds, so that its next job neither reads nor quantises it again.

A job gets a copy of the model's structure whose parameters are those of the held one: configuration, hooks, modes and
buffers of one job never reach the next. What a job may change on the parameters themselves (gradients, dtype) is put
back, and a checksum shows that the weights are bit by bit those that were read. If they are not, or the files have
changed, the base is loaded again. In a process that is no worker nothing is held.
"""

import copy
import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loragrid.errors import print_line
from loragrid.models.loading import load_base
from loragrid.models.model_files import files_state, resolve_folder
from loragrid.runtime.delegation.residency import is_resident, on_release, release_all
from loragrid.study.sections import ModelEntry

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class _Held:
    """A base as it was loaded: `key` says from what, `parameters` are (parameter, trainable, dtype)."""

    key: tuple
    model: Any
    parameters: list[tuple[Any, bool, Any]]
    checksum: list[int]


_held: _Held | None = None


def held_base(entry: ModelEntry, *, device: str) -> "PreTrainedModel":
    """`load_base`, from the base that this worker holds if it is the same; the caller's changes end with its model."""
    global _held
    if not is_resident():
        return load_base(entry, device=device)
    release_all(but=release_base)
    key = (entry.precision, device, files_state(resolve_folder(entry)[0]))
    if _held is not None and (_held.key != key or not _restored(_held)):
        release_base()
    if _held is None:
        model = load_base(entry, device=device)
        parameters = [(one, one.requires_grad, one.dtype) for one in model.parameters()]
        _held = _Held(key, model, parameters, _checksum(model))
    return _structure_copy(_held.model)


def fresh_base(entry: ModelEntry, *, device: str) -> "PreTrainedModel":
    """`load_base` for a job that changes the weights: nothing that is held is in memory beside it, nor is it held."""
    release_all()
    return load_base(entry, device=device)


@on_release
def release_base() -> None:
    """Let go of the held base."""
    global _held
    if _held is not None:
        _held = None
        gc.collect()


def _structure_copy(model: Any) -> Any:
    """A copy of a model whose parameters are the model's own."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def _restored(held: _Held) -> bool:
    """Put the held parameters back as they were loaded; False if their values have changed."""
    for parameter, trainable, dtype in held.parameters:
        parameter.grad = None
        parameter.requires_grad_(trainable)
        if parameter.dtype != dtype:
            # Training in 4 bits casts 16-bit weights to float32, from which they come back exactly.
            parameter.data = parameter.data.to(dtype)
    if _checksum(held.model) == held.checksum:
        return True
    print_line("the last job changed the base in memory: it is loaded again")
    return False


def _checksum(model: Any) -> list[int]:
    """Two sums of each parameter's bits, the second with a weight for each block; read from the device at once."""
    import torch

    with torch.no_grad():
        sums = [part for parameter in model.parameters() for part in _bit_sums(parameter.data)]
        return torch.stack(sums).tolist()


def _bit_sums(values: "torch.Tensor") -> list["torch.Tensor"]:
    import torch

    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    bits = values.contiguous().view(words).flatten()
    sums = torch.stack([block.sum(dtype=torch.int64) for block in bits.split(2**20)])
    weights = torch.arange(1, len(sums) + 1, device=values.device)
    return [sums.sum(), (sums * weights).sum()]
