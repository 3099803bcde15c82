"""Number of optimizer updates that a training budget buys."""

import math
import statistics
from collections.abc import Sequence

from loragrid.errors import UserError
from loragrid.study.sections import Budget


def plan_steps(budget: Budget, *, lengths_tokens: Sequence[int], per_device: int, accumulation: int) -> int:
    """Optimizer updates that `budget` buys on rows of these lengths; no rows are a `UserError`."""
    if not lengths_tokens:
        raise UserError("training data: no rows. Fix: see the data card for the reasons why rows were dropped.")
    rows, row_tokens = len(lengths_tokens), statistics.fmean(lengths_tokens)
    return updates(budget, rows=rows, row_tokens=row_tokens, per_device=per_device, accumulation=accumulation)


def updates(budget: Budget, *, rows: int | None, row_tokens: float, per_device: int, accumulation: int) -> int | None:
    """Optimizer updates that `budget` buys; None for epochs of an unknown number of rows.

    Tokens are non-padding training tokens. An update sees `per_device * accumulation` rows of mean
    length, so the tokens actually spent differ from the budget by less than half an update plus the
    luck of the draw; the record holds the exact count.
    """
    if budget.steps is not None:
        return budget.steps
    if budget.tokens is not None:
        # The learning-rate schedule needs the number of updates before the first one, so training
        # cannot simply stop when the tokens are used up.
        return max(1, round(budget.tokens / (row_tokens * per_device * accumulation)))
    if rows is None:
        return None
    # As in transformers' Trainer, an epoch ends with a smaller update if its rows do not fill the
    # last one.
    batches = math.ceil(rows / per_device)
    return max(1, math.ceil(budget.epochs * math.ceil(batches / accumulation)))
