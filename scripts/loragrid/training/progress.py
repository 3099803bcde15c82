"""Training progress of one run: counts, loss rows, and when to evaluate, save or stop.

Independent of the trainer, so that every rule here is tested without a model.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from loragrid.errors import print_progress
from loragrid.records.losses import LossRow, LossTable
from loragrid.runtime.session import SessionClock, StopSignals
from loragrid.training.totals import Totals

# fp16 skips an update whose scaled gradients overflow, and halves the scale. From the initial
# scale, 2**16, 25 skipped updates in a row reach 2**-9: gradients that still overflow there will
# overflow at any scale.
MAX_SKIPPED_UPDATES = 25
REPORT_SECONDS = 5.0


class Diverged(Exception):
    """The loss or the gradient norm is no longer a finite number."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}")
        self.step = step


class StoppedBeforeUpdate(Exception):
    """A stop was requested before the session's first update: nothing to save, nothing lost."""


@dataclass(kw_only=True)
class Progress:
    """Receives the trainer's events and decides the next action.

    `evaluations`: measurements of the held-out loss, at equal parts of the updates. `keep_at`:
    shares of the updates, below 1, after which weights are kept. `on_heldout_loss(step, loss)` is
    called after each measurement and may raise, as the search does to prune a trial. `rows_name`:
    what messages call the rows that the loss is measured on.
    `saving_seconds` and `evaluating_seconds` are those of this session.
    """

    run: str
    planned_steps: int
    evaluations: int
    save_steps: int
    save_minutes: float
    losses: LossTable
    clock: SessionClock
    stop: StopSignals
    keep_at: tuple[float, ...] = ()
    on_heldout_loss: Callable[[int, float], None] | None = None
    rows_name: str = "held-out"
    totals: Totals = field(default_factory=Totals)
    stop_reason: str | None = None
    saving_seconds: float = 0.0
    evaluating_seconds: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _seconds_before: float = 0.0
    _step_began: float = field(default_factory=time.monotonic)
    _saved_at: float = field(default_factory=time.monotonic)
    _reported_at: float = -math.inf
    _steps_before: int = 0
    _newest_evaluation: float = 0.0
    _first_update_seconds: float = 0.0

    def begin(self, state: dict[str, Any] | None) -> None:
        """Start the session, from a checkpoint's state or, with None, from the first step."""
        self.totals = Totals(**state["seen"]) if state else Totals()
        self.losses.restore(state["losses"] if state else [])
        self._steps_before = self.totals.step
        self._seconds_before = self.totals.seconds
        self._began = self._step_began = self._saved_at = time.monotonic()

    @property
    def updates_in_session(self) -> int:
        """Updates made since `begin`."""
        return self.totals.step - self._steps_before

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold for `begin`, as plain JSON values."""
        self.totals.seconds = self.seconds()
        return {"seen": vars(self.totals).copy(), "losses": self.losses.as_dicts()}

    def seconds(self) -> float:
        """Training seconds of all sessions; updates that a kill made necessary again count once."""
        return self._seconds_before + self.session_seconds()

    def session_seconds(self) -> float:
        """Training seconds of this session, evaluation and saving included."""
        return time.monotonic() - self._began

    def count_batches(self, *, samples: int, tokens: int, loss_tokens: int, positions: int, content: bytes) -> None:
        """Count the batches of one update; `content` is a digest of their tokens."""
        self.totals.samples += samples
        self.totals.tokens += tokens
        self.totals.loss_tokens += loss_tokens
        self.totals.positions += positions
        # Chained, so that the digest depends on the order of the batches and fits a checkpoint.
        self.totals.order = hashlib.sha256(self.totals.order.encode() + content).hexdigest()

    def record_update(
        self, *, step: int, loss: float, learning_rate: float, grad_norm: float | None, skipped: bool
    ) -> None:
        """Record an update; raises `Diverged` if its loss or gradient norm is not finite."""
        self.totals.step = step
        self.totals.skipped_in_a_row = self.totals.skipped_in_a_row + 1 if skipped else 0
        # The row comes before the checks: the losses file shows the value that ended the run.
        self._add(step, "train", loss, learning_rate, grad_norm)
        now = time.monotonic()
        self.clock.record_duration(step=now - self._step_began)
        self._step_began = now
        if self.updates_in_session == 1:
            self._first_update_seconds = self._updating_seconds()
        if not math.isfinite(loss):
            raise Diverged(step, f"the training loss became {loss}")
        # A skipped update has infinite gradients by definition and changed no weight.
        if grad_norm is not None and not math.isfinite(grad_norm) and not skipped:
            raise Diverged(step, f"the gradient norm became {grad_norm}")
        if self.totals.skipped_in_a_row >= MAX_SKIPPED_UPDATES:
            raise Diverged(step, f"{MAX_SKIPPED_UPDATES} updates in a row had no finite gradient")
        self.report()

    def record_heldout_loss(self, *, step: int, loss: float, seconds: float) -> None:
        """Record a held-out loss, in nats per loss token; raises `Diverged` if it is not finite."""
        self._add(step, "heldout", loss, None, None)
        self.evaluating_seconds += seconds
        self.expect_evaluation(seconds)
        # The evaluation has its own estimate and must not count as part of the next step.
        self._step_began = time.monotonic()
        self.report(final=step >= self.planned_steps)
        if not math.isfinite(loss):
            raise Diverged(step, f"the {self.rows_name} loss became {loss}")
        if self.on_heldout_loss is not None:
            self.on_heldout_loss(step, loss)

    def expect_evaluation(self, seconds: float) -> None:
        """Expect further measurements to take so long, as this one did, or that of another job."""
        self._newest_evaluation = seconds
        # For the session's end the slowest counts.
        self.clock.record_duration(evaluation=seconds)

    def record_save(self, seconds: float) -> None:
        """Record that a checkpoint was written."""
        self._saved_at = time.monotonic()
        self.record_kept(seconds)

    def record_kept(self, seconds: float) -> None:
        """Record that weights were written that no session resumes from."""
        self._step_began = time.monotonic()
        self.saving_seconds += seconds
        self.clock.record_duration(save=seconds)

    def evaluation_due(self, step: int) -> bool:
        """True at step 0, at equal parts of the updates and after the last, unless that row exists."""
        # A resumed run asks again for the step of its checkpoint, which may be measured already.
        newest = self.losses.last("heldout")
        return self._evaluates_at(step) and (newest is None or newest.step < step)

    def save_due(self, step: int) -> bool:
        """True at the interval of steps or of minutes, whichever comes first."""
        # After the last update the adapter itself is saved; nobody would resume from a checkpoint.
        if step >= self.planned_steps:
            return False
        # Minutes too, because 250 steps can take longer than a session on a free GPU lasts.
        waited = time.monotonic() - self._saved_at
        return step % self.save_steps == 0 or waited >= self.save_minutes * 60

    def shares_due(self, step: int) -> list[float]:
        """The shares of the updates that are made after this step, whose weights are to be kept."""
        return [share for share in self.keep_at if step == max(1, round(share * self.planned_steps))]

    def must_stop(self, step: int) -> bool:
        """Whether to save and leave: on a signal, or if the next update may outlast the session."""
        if self.stop.requested:
            self.stop_reason = self.stop.requested
        elif step < self.planned_steps:
            evaluates = self._evaluates_at(step + 1)
            if self.clock.too_late(with_evaluation=evaluates):
                self.stop_reason = "paused: session_minutes"
        return self.stop_reason is not None

    def report(self, *, final: bool = False) -> None:
        """Print one line every few seconds, or now if `final`."""
        # Lines and not a progress bar: several jobs share the terminal.
        now = time.monotonic()
        if not final and now - self._reported_at < REPORT_SECONDS:
            return
        self._reported_at = now
        left = self._seconds_left() if self.updates_in_session else None
        ends = "starting" if left is None else f"{left:.0f} s left"
        rows = {"loss": self.losses.last("train"), self.rows_name: self.losses.last("heldout")}
        losses = [f"{name} {row.loss:.4f}" for name, row in rows.items() if row is not None]
        done, total = self.totals.step, self.planned_steps
        line = f"[{self.run}] step {done}/{total} {' '.join(losses)} | {self.seconds():.0f} s, {ends}"
        print_progress(line, done=done, total=total, unit="steps", text=", ".join(losses), seconds_left=left)

    def _seconds_left(self) -> float:
        """Expected seconds of the remaining updates and measurements, by this session's own pace."""
        # An earlier session may have run on another machine, and the first update of a session also sets up its kernels
        # and memory.
        timed, updating = self.updates_in_session, self._updating_seconds()
        if timed > 1:
            timed, updating = timed - 1, updating - self._first_update_seconds
        per_update = updating / timed
        newest = self.losses.last("heldout")
        measurements = sum(newest is None or step > newest.step for step in self._evaluation_steps())
        return per_update * (self.planned_steps - self.totals.step) + self._newest_evaluation * measurements

    def _updating_seconds(self) -> float:
        """Seconds of this session that were neither measuring nor saving."""
        return self.session_seconds() - self.evaluating_seconds - self.saving_seconds

    def _evaluates_at(self, step: int) -> bool:
        return step in self._evaluation_steps()

    def _evaluation_steps(self) -> set[int]:
        return {round(part * self.planned_steps / self.evaluations) for part in range(self.evaluations + 1)}

    def _add(
        self,
        step: int,
        kind: Literal["train", "heldout"],
        loss: float,
        learning_rate: float | None,
        grad_norm: float | None,
    ) -> None:
        self.losses.add(
            LossRow(
                step=step,
                kind=kind,
                loss=loss,
                learning_rate=learning_rate,
                grad_norm=grad_norm,
                samples=self.totals.samples,
                tokens=self.totals.tokens,
                loss_tokens=self.totals.loss_tokens,
                seconds=round(self.seconds(), 3),
            )
        )
