"""The processes (ranks) that train one run together, and what they tell each other.

Each computes a part of an update's rows, and their gradients are added up before the update, so all hold the same
weights. That is data parallel training as torch's DistributedDataParallel does it, but gradients are always added in
one order: DDP sorts them again after its first update, so a resumed run would differ in the last bits.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.runtime.session import StopSignals

if TYPE_CHECKING:
    import torch

# Set by the launcher for each rank; `FOLDER` is where they meet.
RANK, COUNT, FOLDER = "LORAGRID_RANK", "LORAGRID_RANKS", "LORAGRID_RANKS_FOLDER"
# The launcher ends all ranks when one dies, so no rank needs to give up waiting by itself.
TIMEOUT = timedelta(days=7)
# How often a rank looks whether its launcher still exists.
PARENT_SECONDS = 1.0
# Gradients are added in blocks of at most this many numbers, which bounds the copy that it takes.
BLOCK_NUMBERS = 2**26


class RankLost(BaseException):
    """Another rank has ended, and its own line says why. No `Exception`: it is no failure of this rank."""


@dataclass(frozen=True)
class Ranks:
    """The place of a process among the `count` that train a run; rank 0 writes all files.

    `gradients` is the group that adds them, None for the one that exchanges values.
    """

    rank: int = 0
    count: int = 1
    gradients: Any = None

    def exchange(self, value: Any) -> list[Any]:
        """The value of every rank, in their order; all ranks must call it."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.count
        with _lost_ranks():
            dist.all_gather_object(values, value)
        return values

    def first(self, value: Any) -> Any:
        """Rank 0's value; all ranks must call it."""
        return self.exchange(value)[0]

    def add_gradients(self, parameters: Iterable["torch.nn.Parameter"]) -> None:
        """Replace every gradient by the sum over the ranks, the same bits on each."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for block in _blocks(gradients):
            self._add(block)

    def add_number(self, number: "torch.Tensor") -> "torch.Tensor":
        """The sum of a scalar over the ranks."""
        import torch.distributed as dist

        total = number.detach().clone()
        with _lost_ranks():
            dist.all_reduce(total, group=self.gradients)
        return total

    def _add(self, block: list["torch.Tensor"]) -> None:
        import torch
        import torch.distributed as dist

        together = torch.cat([gradient.flatten() for gradient in block])
        with _lost_ranks():
            dist.all_reduce(together, group=self.gradients)
        parts = together.split([gradient.numel() for gradient in block])
        for gradient, part in zip(block, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


ONE_RANK = Ranks()


class AgreedStop(StopSignals):
    """A stop request that all ranks see at the same moment: when they call `agree`, never in between.

    A signal reaches the ranks at different times. One that stopped alone would leave the others waiting.
    """

    def __init__(self, own: StopSignals, ranks: Ranks) -> None:
        super().__init__()
        self._own, self._ranks = own, ranks

    def request(self, reason: str) -> None:
        """Request a stop at the next `agree`."""
        self._own.request(reason)

    def agree(self) -> None:
        """Take over the request of any rank; all ranks must call it."""
        asked = [reason for reason in self._ranks.exchange(self._own.requested) if reason is not None]
        self.requested = self.requested or next(iter(asked), None)


def is_rank() -> bool:
    """Whether a launcher started this process as one of the ranks of a run."""
    return RANK in os.environ


def rank_folder(rank: int, folder: Path | None = None) -> Path:
    """What a rank above 0 writes to in place of the run's folder; nobody keeps it."""
    return Path(folder or os.environ[FOLDER]) / f"rank-{rank}"


def join_ranks() -> Ranks:
    """Meet the other ranks, by the launcher's environment; on CUDA gradients are added by NCCL, else by gloo."""
    import torch
    import torch.distributed as dist

    rank, count = int(os.environ[RANK]), int(os.environ[COUNT])
    threading.Thread(target=_end_with, args=(os.getppid(),), name="launcher", daemon=True).start()
    # By a file, because a port that is free now may be taken a moment later.
    store = f"file://{Path(os.environ[FOLDER], 'meeting')}"
    with _lost_ranks():
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count, timeout=TIMEOUT)
        gradients = dist.new_group(backend="nccl", timeout=TIMEOUT) if torch.cuda.is_available() else None
    return Ranks(rank, count, gradients)


def _end_with(launcher: int) -> None:
    """End this process, as a kill would, soon after its launcher is gone."""
    while os.getppid() == launcher:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


@contextmanager
def _lost_ranks() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # gloo and NCCL raise nothing more specific when a connection ends.
        raise RankLost(str(error)) from error


def _blocks(gradients: list["torch.Tensor"]) -> Iterator[list["torch.Tensor"]]:
    """The gradients in their order, in blocks of one type and at most `BLOCK_NUMBERS` numbers, or of one gradient."""
    block: list[torch.Tensor] = []
    numbers = 0
    for gradient in gradients:
        full = numbers + gradient.numel() > BLOCK_NUMBERS
        if block and (full or gradient.dtype != block[0].dtype):
            yield block
            block, numbers = [], 0
        block.append(gradient)
        numbers += gradient.numel()
    if block:
        yield block
