"""Causes that a run's loss path shows. The thresholds are defined here once; the page shows each."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from loragrid.comparing.diagnosing.causes import Cause
from loragrid.comparing.diagnosing.loss_margins import NOISE_NATS
from loragrid.comparing.diagnosing.run_evidence import RunEvidence

# ASSUME: a run is under-trained when a tenth of its progress came in the last fifth of its tokens.
LAST_PART, LAST_PROGRESS = 0.2, 0.10
# ASSUME: large steps threw a run off when its held-out loss first rose by a fifth of what there was to win.
THROWN_OFF = 0.2
# ASSUME: a run has not moved when it won less than a tenth of what other runs won, or, alone, when its
# held-out loss fell by less than 2%.
BARELY_WON, BARELY_MOVED = 0.1, 0.02
# ASSUME: a gradient norm of 20 times the median is a jump; jumps in one update of twenty make a run
# unstable.
GRADIENT_JUMP, GRADIENT_JUMP_SHARE = 20.0, 0.05
# Fewer gradient norms have no reliable median.
FEWEST_NORMS = 20
# Held-out measurements after training began: two can show a turn, a slowing fall needs three.
FEWEST_FOR_TURN, FEWEST_FOR_FALL = 2, 3
# Training losses that can be averaged at both ends of a path.
FEWEST_TRAIN = 10


def loss_causes(evidence: RunEvidence) -> Iterator[Cause]:
    """All causes that the loss path and the losses of neighbouring runs show."""
    for check in (diverged, learning_rate, under_trained, overfitted):
        yield from check(evidence)


def diverged(evidence: RunEvidence) -> Iterator[Cause]:
    """The run lost updates to NaN, ended above where it began, or its gradients jumped."""
    path = evidence.path
    if path is None:
        return
    lost = int((~np.isfinite(path.train)).sum())
    skipped = int(np.isinf(path.grad_norm).sum())
    if lost or skipped:
        yield Cause("diverged", "updates_lost", {"not_finite": lost, "infinite_gradient": skipped})
    yield from _ended_above_its_start(evidence)
    norms = path.grad_norm[np.isfinite(path.grad_norm)]
    if len(norms) >= FEWEST_NORMS and np.median(norms) > 0:
        jumps = float((norms > GRADIENT_JUMP * np.median(norms)).mean())
        if jumps >= GRADIENT_JUMP_SHARE:
            threshold = {"times_median": GRADIENT_JUMP, "share": GRADIENT_JUMP_SHARE}
            yield Cause("diverged", "gradient_jumps", {"share": jumps}, threshold)


def _ended_above_its_start(evidence: RunEvidence) -> Iterator[Cause]:
    path = evidence.path
    if path.from_untrained:
        first, last = path.heldout[0], path.heldout[-1]
        margin = evidence.margin.in_run(first)
        if last - first > margin["nats"]:
            yield Cause("diverged", "heldout_rose", {"untrained": first, "last": last}, margin)
    elif len(path.train) >= FEWEST_TRAIN:
        # Most logs from elsewhere lack a held-out loss of the untrained model, so training loss replaces
        # it. Single batches are noisy, so the first and the last tenth are averaged.
        width = _tenth(path.train)
        first, last = np.nanmean(path.train[:width]), np.nanmean(path.train[-width:])
        margin = evidence.margin.in_run(first)
        if last - first > margin["nats"]:
            yield Cause("diverged", "train_rose", {"first": first, "last": last}, margin)


def _tenth(losses: np.ndarray) -> int:
    return max(3, len(losses) // 10)


def learning_rate(evidence: RunEvidence) -> Iterator[Cause]:
    """Too high or too low, judged by runs that differ only in it, or else by the loss path."""
    own = evidence.outcome.record.final_heldout_loss
    if own is None:
        return
    # A run at another rate shows what this rate cost; the shape of one path is only a hint.
    if not evidence.neighbours:
        yield from _learning_rate_of_path(evidence)
        return
    rate = evidence.outcome.cell.settings.learning_rate
    best = min(evidence.neighbours, key=lambda other: other.heldout_loss)
    margin = evidence.margin.between_runs(best.heldout_loss)
    if own - best.heldout_loss > margin["nats"]:
        # The distance supports the cause: a rate too high moves the adapter too far.
        times_as_far = None
        if evidence.distance and np.isfinite(best.distance):
            times_as_far = evidence.distance / best.distance
        measured = {"loss": own, "learning_rate": rate}
        measured |= {"best_loss": best.heldout_loss, "best_learning_rate": best.learning_rate}
        cause = "rate_too_high" if best.learning_rate < rate else "rate_too_low"
        yield Cause(cause, "loss_above_other_rate", measured | {"times_as_far": times_as_far}, margin)


def _learning_rate_of_path(evidence: RunEvidence) -> Iterator[Cause]:
    path = evidence.path
    if path is None or len(path.heldout) < 2:
        return
    first, last, worst = path.heldout[0], path.heldout[-1], np.nanmax(path.heldout[1:])
    margin = evidence.margin.in_run(first, share=THROWN_OFF)
    # A loss that rose for good is `diverged`; one that came back was thrown off by large steps.
    if worst - first > margin["nats"] >= last - first:
        yield Cause("rate_too_high", "rose_and_fell", {"first": first, "worst": worst}, margin)
    fall, to_win = first - last, evidence.margin.to_win
    measured = {"first": first, "last": last}
    if to_win is not None and to_win > max(fall, 0.0) + NOISE_NATS:
        if 0 <= fall < BARELY_WON * to_win:
            yield Cause("rate_too_low", "barely_won", measured | {"to_win": to_win}, {"share": BARELY_WON})
    elif 0 <= fall < BARELY_MOVED * first:
        yield Cause("rate_too_low", "barely_fell", measured, {"share": BARELY_MOVED})


def under_trained(evidence: RunEvidence) -> Iterator[Cause]:
    """The run was still improving when it ended."""
    path = evidence.path
    if path is None or not path.from_untrained or path.trained_measurements < FEWEST_FOR_FALL:
        return
    end = path.heldout_tokens[-1]
    fall = path.heldout[0] - path.heldout[-1]
    late = path.heldout_at((1 - LAST_PART) * end) - path.heldout[-1]
    if late > NOISE_NATS and late >= LAST_PROGRESS * fall > 0:
        measured = {"share": late / fall, "late": late, "fall": fall}
        yield Cause("under_trained", "late_progress", measured, {"last_part": LAST_PART, "share": LAST_PROGRESS})


def overfitted(evidence: RunEvidence) -> Iterator[Cause]:
    """Held-out loss turned up while training loss went on falling."""
    path = evidence.path
    if path is None or path.trained_measurements < FEWEST_FOR_TURN or len(path.train) < FEWEST_TRAIN:
        return
    if np.isnan(path.heldout).all():
        return
    low = int(np.nanargmin(path.heldout))
    margin = evidence.margin.in_run(path.heldout[low])
    # A loss that rose from the start never turned: that is `diverged`, not overfitting.
    if path.heldout_tokens[low] == 0 or not path.heldout[-1] - path.heldout[low] > margin["nats"]:
        return
    # Training loss around the turn and at the end, each over about a tenth of the updates.
    width = _tenth(path.train)
    middle = int(np.searchsorted(path.train_tokens, path.heldout_tokens[low]))
    before = np.nanmean(path.train[max(0, middle - width) : middle + width])
    after = np.nanmean(path.train[-width:])
    if after < before:
        measured = {"lowest": path.heldout[low], "last": path.heldout[-1], "train_at_lowest": before}
        measured |= {"train_last": after, "epochs": evidence.epochs}
        yield Cause("overfitted", "heldout_turned_up", measured, margin)


def unmade(evidence: RunEvidence) -> dict[str, Any] | None:
    """The checks with too few held-out measurements, and their number; None if all were made."""
    path = evidence.path
    count = 0 if path is None else path.trained_measurements
    fewest = {"overfitted": FEWEST_FOR_TURN, "under_trained": FEWEST_FOR_FALL}
    checks = [cause for cause, needed in fewest.items() if count < needed]
    if not checks:
        return None
    return {"checks": checks, "measurements": count}
