"""How many optimizer updates a training budget buys."""

import math
import statistics
from collections.abc import Sequence

from loragrid.errors import UserError
from loragrid.study.sections import Budget


def plan_steps(budget: Budget, *, lengths_tokens: Sequence[int], per_device: int, accumulation: int) -> int:
    """`updates` over rows of these lengths."""
    if not lengths_tokens:
        raise UserError("the training data hold no row: look at the data card's reasons for dropping rows")
    rows, row_tokens = len(lengths_tokens), statistics.fmean(lengths_tokens)
    return updates(budget, rows=rows, row_tokens=row_tokens, per_device=per_device, accumulation=accumulation)


def updates(budget: Budget, *, rows: int | None, row_tokens: float, per_device: int, accumulation: int) -> int | None:
    """Optimizer updates that `budget` buys; None for epochs of an unknown number of rows.

    Tokens are non-padding training tokens: an update sees `per_device * accumulation` rows of mean length, so the
    tokens really spent differ from the budget by less than half an update plus the luck of the draw (the record
    holds the exact count). The schedule needs the number of updates before the first one, hence no exact stop.
    """
    if budget.steps is not None:
        return budget.steps
    if budget.tokens is not None:
        return max(1, round(budget.tokens / (row_tokens * per_device * accumulation)))
    if rows is None:
        return None
    # An epoch ends with a smaller update where the rows do not divide, as in transformers' Trainer.
    return max(1, math.ceil(budget.epochs * math.ceil(math.ceil(rows / per_device) / accumulation)))
