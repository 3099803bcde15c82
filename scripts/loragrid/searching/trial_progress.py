"""Progress of a trial: it can be pruned at equal parts of its training and saves nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loragrid.training.progress import Progress

QUIET_SECONDS = 7.0


class Pruned(Exception):
    """Raised out of the trainer when a measurement shows that the trial is not worth continuing."""


@dataclass(kw_only=True)
class TrialProgress(Progress):
    """Progress that reports the part of the training at which the validation loss was measured.

    There, trials with different batches are comparable. In losses.csv the rows of kind "heldout" are
    those measurements.
    """

    rows_name: str = "validation"

    def part(self, step: int) -> int:
        """The number of the last part that ends at or before `step` updates, counted from 1."""
        ends = [round(number * self.planned_steps / self.evaluations) for number in range(1, self.evaluations + 1)]
        return sum(end <= step for end in ends)

    def report(self, *, final: bool = False) -> None:
        """Print progress only for long trials, because the search prints a line for each."""
        # Shorter trials would only push the search's own lines off the screen.
        if not final and self.session_seconds() > QUIET_SECONDS:
            super().report()

    def prune_if(self, should_prune: Callable[[int, float], bool]) -> None:
        """Raise `Pruned` at the first measurement for which `should_prune(number, loss)` is true."""

        def on_heldout_loss(step: int, loss: float) -> None:
            # An exception, because a trainer that is asked to stop makes one more update first.
            if should_prune(self.part(step), loss) and step < self.planned_steps:
                raise Pruned

        self.on_heldout_loss = on_heldout_loss

    def _evaluates_at(self, step: int) -> bool:
        # Not at step 0, where every trial has the loss of the untrained base.
        return step > 0 and super()._evaluates_at(step)


class NoCheckpoints:
    """A checkpoint store that keeps nothing: trials are short, and interrupted ones start again."""

    def save(self, **_: Any) -> None:
        """Save nothing."""
