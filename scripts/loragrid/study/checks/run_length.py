"""Runs that cannot be what their settings say: an update of more rows than there are, a warm-up that never ends.

This module only refuses and warns, so `loragrid.runtime.code_digest` leaves it out of the code of the stages.
"""

from dataclasses import dataclass

from loragrid.errors import UserError
from loragrid.study.budget import updates
from loragrid.study.settings import Settings


@dataclass(frozen=True)
class TrainingRows:
    """The most training rows that a set can have, and their mean length in tokens; None if unknown."""

    count: int | None
    mean_tokens: float | None = None


def check_batch(settings: Settings, rows: int | None) -> None:
    """Raise `UserError` if an update takes more rows than the training set has; `rows`: None if unknown."""
    per_update = settings.per_device * settings.accumulation
    if rows is not None and per_update > rows:
        raise UserError(
            f"batch: an update would take {per_update} rows ({list(settings.batch)}), and data set {settings.data} "
            f"has {rows} to train on: larger batches would all be this one. "
            f"Fix: lower the batch to {rows} rows or fewer, or give more rows."
        )


def warmup_warning(settings: Settings, planned: int | None) -> str | None:
    """What is wrong with a warm-up that lasts as long as its run of `planned` updates; None if it ends earlier."""
    warmup = settings.warmup.steps
    if not warmup or planned is None or warmup < planned or settings.schedule == "constant":
        return None
    # Update k, counted from 0, has the share k / warmup of the rate.
    reached = (planned - 1) / warmup
    return (
        f"warmup: {warmup} updates of a run that has {planned}: the learning rate never reaches "
        f"{settings.learning_rate:g}, only {reached:.1%} of it. Fix: set warmup below {planned} updates, or to a ratio"
    )


def planned_updates(settings: Settings, rows: TrainingRows) -> int | None:
    """The run's updates; None if they are not known yet, as with rows that are still to be packed."""
    unknown = rows.count is None or (settings.budget.tokens is not None and rows.mean_tokens is None)
    if settings.budget.steps is None and (settings.packing or unknown):
        return None
    return updates(
        settings.budget,
        rows=rows.count,
        row_tokens=rows.mean_tokens or 1.0,
        per_device=settings.per_device,
        accumulation=settings.accumulation,
    )


def check_length(max_length_tokens: int, context: int | None, model: str) -> None:
    """Refuse rows longer than the model's context, whose end the base has no positions for; None: it states none."""
    if context is not None and max_length_tokens > context:
        raise UserError(
            f"max_length_tokens: {max_length_tokens} is longer than the context of model "
            f"{model}, {context} tokens. Fix: set it to {context} or less."
        )
