"""The rows of an update divided over passes, and over several GPUs."""

from collections.abc import Iterator
from dataclasses import dataclass

from loragrid.study.settings import Batch, Settings

# Tokens of a pass on a CPU. Measured on the demo's llama-s, one core: 8 rows of 105 tokens in one pass take 0.68
# of the time of 2 x 4, 16 x 2 0.73 of 4 x 8, and 32 x 1 more than 16 x 2; a model of 36 M parameters 0.87.
CPU_PASS_TOKENS = 2048


@dataclass(frozen=True)
class StepLayout:
    """How an update's rows run: rows a pass, passes, and whether activations are computed again in the backward pass.

    Every layout of a batch has the same gradient up to rounding, and other draws of dropout.
    """

    per_device: int
    accumulation: int
    checkpointing: bool


def divided_batch(batch: Batch, gpus: int) -> Batch | None:
    """Rows a batch, and batches an update, so that each of `gpus` GPUs has equally many; None if there is no such.

    An update keeps its rows: their product is that of `batch`. A batch gets smaller only where there are too few.
    """
    per_device, accumulation = batch
    rows = per_device * accumulation
    for fewer in range(per_device, 0, -1):
        if rows % (fewer * gpus) == 0:
            return fewer, rows // fewer
    return None


def fitting_gpus(batch: Batch, *, most: int) -> list[int]:
    """The numbers of GPUs up to `most` that an update's rows can be divided over."""
    return [gpus for gpus in range(1, most + 1) if divided_batch(batch, gpus) is not None]


def written_layout(settings: Settings, kind: str) -> StepLayout:
    """The batch as the study file writes it; a GPU (`kind` "cuda") computes activations again, a CPU has the memory."""
    return StepLayout(settings.per_device, settings.accumulation, kind == "cuda")


def cpu_layout(settings: Settings, *, row_tokens: float, fold: bool) -> StepLayout:
    """The layout of an update on a CPU: with `fold` as many rows a pass as are fast; `row_tokens` is their mean."""
    for rows in folds(settings.per_device, settings.accumulation) if fold else ():
        if rows * row_tokens <= CPU_PASS_TOKENS:
            return StepLayout(rows, settings.per_device * settings.accumulation // rows, False)
    return written_layout(settings, "cpu")


def folds(per_device: int, accumulation: int) -> Iterator[int]:
    """Rows a pass, most first, with which the same rows make an update in fewer passes."""
    product = per_device * accumulation
    return (rows for rows in range(product, per_device, -1) if product % rows == 0)
