"""The rows of an update divided over several GPUs."""

from loragrid.study.settings import Batch


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
