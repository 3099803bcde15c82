"""Counts of a run since it began."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Totals:
    """Totals since the run began.

    `positions` includes padding, `tokens` does not. `order` is a running digest of the tokens of
    all batches, which shows whether two runs saw the same samples in the same order.
    """

    step: int = 0
    samples: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    positions: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    order: str = ""
