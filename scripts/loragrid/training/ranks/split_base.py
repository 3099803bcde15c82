"""A frozen base that one GPU does not hold, split over the GPUs of a run: each layer is put together while it is used.

That is FSDP (Zhao et al. 2023, https://arxiv.org/abs/2304.11277) as torch's `fully_shard` does it, of the frozen
weights only. Adapters stay whole on every GPU, so updates, checkpoints and results are those of a base that is not
split.
"""

from contextlib import suppress
from typing import Any

from loragrid.errors import UserError
from loragrid.models.find_shape import find_shape
from loragrid.models.target_modules import language_model
from loragrid.planning.job_memory import gpu_training_setup, on_each_gpu
from loragrid.planning.memory_model import splits_base, training_memory
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study
from loragrid.training.ranks.processes import Ranks


def needs_split(study: Study, cell: Cell, *, device: str, ranks: Ranks) -> bool:
    """Whether the base does not fit one GPU by the plan's memory model; the same answer on all ranks."""
    if ranks.count == 1 or device != "cuda":
        return False
    return ranks.first(_too_large(study, cell, gpus=ranks.count))


def _too_large(study: Study, cell: Cell, *, gpus: int) -> bool:
    import torch

    shape = None
    with suppress(UserError):
        shape = find_shape(study.models[cell.model])
    if shape is None:
        return False
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    setup = on_each_gpu(gpu_training_setup(cell.settings, bf16=bf16), cell.settings, gpus)
    card_mib = torch.cuda.get_device_properties(0).total_memory / 2**20
    return splits_base(training_memory(shape, setup), setup, gpus=gpus, vram_mib=card_mib)


def split_base(model: Any, *, device: str, ranks: Ranks) -> None:
    """Split the frozen weights of a model on the CPU over the ranks' devices, and move everything else there whole.

    From then on all ranks must make equally many forward and backward passes.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    mesh = DeviceMesh.from_group(ranks.gradients or dist.group.WORLD, device)
    _, decoder = language_model(model.get_base_model())
    for part in (*getattr(decoder, "layers", ()), model):
        trained = {parameter for parameter in part.parameters() if parameter.requires_grad}
        # Also the outermost part: rank 0 alone reads the weights to save them, and would have to gather it alone.
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(device)
