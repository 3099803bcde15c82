"""How a trial of a search ended."""

import math
from dataclasses import dataclass

from loragrid.records.failures import out_of_memory
from loragrid.searching.trial_progress import TrialProgress


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How a trial ended.

    `outcome`: complete, pruned, diverged, out_of_memory, failed, or why it was left unfinished.
    `curve` has for each measurement its number (1 to evaluations), step, tokens seen and loss on the
    validation rows; `loss` is the last finite one. `value` is that of the objective, of a complete trial.
    """

    outcome: str
    reason: str | None
    value: float | None = None
    loss: float | None = None
    curve: tuple[tuple[int, int, int, float], ...] = ()
    steps: int = 0
    planned_steps: int | None = None
    samples: int = 0
    tokens: int = 0
    seconds: float


def failed(error: Exception) -> tuple[str, str]:
    """Outcome and reason of a trial that ended with an error."""
    memory = out_of_memory(error)
    if memory is not None:
        return "out_of_memory", f"out of {memory['where']} memory"
    return "failed", f"{type(error).__name__}: {error}"


def trial_result(progress: TrialProgress | None, *, outcome: str, reason: str | None, seconds: float) -> TrialResult:
    """The result of a trial; its `progress` is None if the trial failed before its first step."""
    if progress is None:
        return TrialResult(outcome=outcome, reason=reason, seconds=seconds)
    rows = [row for row in progress.losses.rows if row.kind == "heldout" and math.isfinite(row.loss)]
    return TrialResult(
        outcome=outcome,
        reason=reason,
        loss=rows[-1].loss if rows else None,
        curve=tuple((progress.part(row.step), row.step, row.tokens, row.loss) for row in rows),
        steps=progress.totals.step,
        planned_steps=progress.planned_steps,
        samples=progress.totals.samples,
        tokens=progress.totals.tokens,
        seconds=seconds,
    )
