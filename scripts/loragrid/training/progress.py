"""The progress of one run: what it has seen, its loss rows, and when to evaluate, save or stop. Knows no trainer."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from loragrid.errors import print_line
from loragrid.records.losses import LossRow, LossTable
from loragrid.runtime.session import SessionClock, StopSignals

# fp16 skips an update whose scaled gradients overflow and lowers the scale; this many in a row is no search for a scale.
MAX_SKIPPED_UPDATES = 25
PROGRESS_SECONDS = 5.0


class Diverged(Exception):
    """The loss or the gradient is no finite number any more."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}")
        self.step = step


class StoppedBeforeUpdate(Exception):
    """A stop was asked for before the session's first update: nothing is lost, nothing is to be saved."""


@dataclass(kw_only=True)
class Totals:
    """Totals since the run began. `positions` counts padding too; `order` chains a digest of every batch's tokens."""

    step: int = 0
    samples: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    positions: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    order: str = ""


@dataclass(kw_only=True)
class Progress:
    """Told by the trainer what happened, tells it what to do next.

    `listen` is called with (step, held-out loss) after each measurement; it may raise, as a search that prunes does.
    `saving_seconds` and `evaluating_seconds` are this session's.
    """

    run: str
    planned_steps: int
    evaluate_every_steps: int
    save_steps: int
    save_minutes: float
    losses: LossTable
    clock: SessionClock
    stop: StopSignals
    on_heldout_loss: Callable[[int, float], None] | None = None
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

    def begin(self, state: dict[str, Any] | None) -> None:
        """Start the clock, from a checkpoint's state or from nothing."""
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
        """What a checkpoint must hold for `begin`."""
        self.totals.seconds = self.seconds()
        return {"seen": vars(self.totals).copy(), "losses": self.losses.as_dicts()}

    def seconds(self) -> float:
        """Training time up to here, without what a kill made be done twice."""
        return self._seconds_before + self.session_seconds()

    def session_seconds(self) -> float:
        """Training time of this session, evaluation and saving included."""
        return time.monotonic() - self._began

    def count_batches(self, *, samples: int, tokens: int, loss_tokens: int, positions: int, content: bytes) -> None:
        """Count the batches of one update."""
        self.totals.samples += samples
        self.totals.tokens += tokens
        self.totals.loss_tokens += loss_tokens
        self.totals.positions += positions
        self.totals.order = hashlib.sha256(self.totals.order.encode() + content).hexdigest()

    def record_update(
        self, *, step: int, loss: float, learning_rate: float, grad_norm: float | None, skipped: bool
    ) -> None:
        """Note an update; raises `Diverged` when its loss, or its gradient, is no finite number."""
        self.totals.step = step
        self.totals.skipped_in_a_row = self.totals.skipped_in_a_row + 1 if skipped else 0
        self._add(step, "train", loss, learning_rate, grad_norm)
        now = time.monotonic()
        self.clock.record_duration(step=now - self._step_began)
        self._step_began = now
        if not math.isfinite(loss):
            raise Diverged(step, f"the training loss became {loss}")
        if grad_norm is not None and not math.isfinite(grad_norm) and not skipped:
            raise Diverged(step, f"the gradient norm became {grad_norm}")
        if self.totals.skipped_in_a_row >= MAX_SKIPPED_UPDATES:
            raise Diverged(step, f"{MAX_SKIPPED_UPDATES} updates in a row had no finite gradient")
        self.report()

    def record_heldout_loss(self, *, step: int, loss: float, seconds: float) -> None:
        """Note a held-out loss, per loss token over all held-out rows."""
        self._add(step, "heldout", loss, None, None)
        self.evaluating_seconds += seconds
        self.clock.record_duration(evaluation=seconds)
        self._step_began = time.monotonic()
        self.report(final=step >= self.planned_steps)
        if not math.isfinite(loss):
            raise Diverged(step, f"the held-out loss became {loss}")
        if self.on_heldout_loss is not None:
            self.on_heldout_loss(step, loss)

    def record_save(self, seconds: float) -> None:
        """Note that a checkpoint was written."""
        self._saved_at = self._step_began = time.monotonic()
        self.saving_seconds += seconds
        self.clock.record_duration(save=seconds)

    def evaluation_due(self, step: int) -> bool:
        """At step 0, at the interval and after the last update, unless the row is there already."""
        newest = self.losses.last("heldout")
        return self._evaluates_at(step) and (newest is None or newest.step < step)

    def save_due(self, step: int) -> bool:
        """At the interval of steps or of minutes, whichever comes first; not after the last update."""
        waited = time.monotonic() - self._saved_at
        return step < self.planned_steps and (step % self.save_steps == 0 or waited >= self.save_minutes * 60)

    def must_stop(self, step: int) -> bool:
        """Whether to save and leave now: a signal, or a session limit that the next update might not meet."""
        if self.stop.requested:
            self.stop_reason = self.stop.requested
        elif step < self.planned_steps and self.clock.too_late(with_evaluation=self._evaluates_at(step + 1)):
            self.stop_reason = "paused: session_minutes"
        return self.stop_reason is not None

    def report(self, *, final: bool = False) -> None:
        """One line on stderr every few seconds: several jobs share a terminal, so no bar is drawn over another's."""
        now = time.monotonic()
        if not final and now - self._reported_at < PROGRESS_SECONDS:
            return
        self._reported_at = now
        done = self.updates_in_session
        left = (
            f"{self.session_seconds() / done * (self.planned_steps - self.totals.step):.0f} s left"
            if done
            else "starting"
        )
        parts = [f"[{self.run}] step {self.totals.step}/{self.planned_steps}"]
        parts += [f"{name} {row.loss:.4f}" for kind, name in _NAMES if (row := self.losses.last(kind))]
        print_line(" ".join(parts) + f" | {self.seconds():.0f} s, {left}")

    def _evaluates_at(self, step: int) -> bool:
        return step % self.evaluate_every_steps == 0 or step >= self.planned_steps

    def _add(self, step: int, kind: Any, loss: float, learning_rate: float | None, grad_norm: float | None) -> None:
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


_NAMES = (("train", "loss"), ("heldout", "held-out"))
