"""How many optimizer updates a training budget buys."""

import math
from collections.abc import Sequence
from typing import Any

from study.errors import UserError


def plan_steps(budget: dict[str, Any], *, lengths_tokens: Sequence[int], per_device: int, accumulation: int) -> int:
    """Optimizer updates for a `budget` of {steps}, {tokens} or {epochs} over rows of these lengths.

    Tokens are non-padding training tokens: an update sees `per_device * accumulation` rows of mean length, so the
    tokens really spent differ from the budget by less than half an update plus the luck of the draw (the record
    holds the exact count). The schedule needs the number of updates before the first one, hence no exact stop.
    """
    if not lengths_tokens:
        raise UserError("the training data hold no row: look at the data card's reasons for dropping rows")
    if "steps" in budget:
        return int(budget["steps"])
    if "tokens" in budget:
        mean_tokens = sum(lengths_tokens) / len(lengths_tokens)
        return max(1, round(budget["tokens"] / (mean_tokens * per_device * accumulation)))
    batches = math.ceil(len(lengths_tokens) / per_device)
    # An epoch ends with a smaller update where the rows do not divide, as in transformers' Trainer.
    return max(1, math.ceil(budget["epochs"] * math.ceil(batches / accumulation)))
