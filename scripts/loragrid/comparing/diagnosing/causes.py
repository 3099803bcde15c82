"""Why a tuned model is worse, or could be better: causes with the numbers that show them.

Several causes may hold for a run; none at all is an answer too. The thresholds are defined here
once, and the report shows each beside the number that passed it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loragrid.comparing.diagnosing.run_evidence import RunEvidence
from loragrid.statistics.paired_statistics import BETTER, UNSURE, WORSE

# ASSUME: a held-out loss differs from another when they are 3% and 0.02 nats apart.
LOSS_SHARE, LOSS_NATS = 0.03, 0.02
# ASSUME: a run is under-trained when a tenth of its progress came in the last fifth of its tokens.
LAST_PART, LAST_PROGRESS = 0.2, 0.10
# ASSUME: a run that lowered the held-out loss by less than 2% has not moved.
BARELY_MOVED = 0.02
# ASSUME: answers loop when half of their 4-grams repeat; below half of the base's, variety is lost.
REPETITION, REPETITION_OVER_BASE, VARIETY_SHARE = 0.5, 0.2, 0.5
# ASSUME: a model does not stop when fewer than half of its answers end by themselves, and more than
# one special token in twenty answers is a fault of the template.
STOPPED, SPECIAL_TOKENS = 0.5, 0.05
# ASSUME: a gradient norm of 20 times the median is a jump; jumps in one update of twenty make a run
# unstable.
GRADIENT_JUMP, GRADIENT_JUMP_SHARE = 20.0, 0.05
# Fewer gradient norms have no reliable median.
FEWEST_NORMS = 20
# Held-out measurements after training began: two can show a turn, a slowing fall needs three.
FEWEST_FOR_TURN, FEWEST_FOR_FALL = 2, 3
# The margin of a loss as the threshold of a cause.
LOSS_MARGIN = {"loss_share": LOSS_SHARE, "loss_nats": LOSS_NATS}


@dataclass(frozen=True)
class Cause:
    """One cause of one run. `cause` and `evidence` are codes: what is wrong, and what shows it.

    `measured` holds the numbers of the evidence, `threshold` those that they passed; the report
    words both.
    """

    cause: str
    evidence: str
    measured: dict[str, Any] = field(default_factory=dict)
    threshold: dict[str, float] = field(default_factory=dict)


def diagnose(evidence: RunEvidence, rows: list[dict[str, Any]], *, target: str | None) -> list[Cause]:
    """The causes that hold for one run.

    `rows` are its comparisons with its base; `target` is the main target task.
    """
    if evidence.outcome.status == "diverged":
        return [Cause("diverged", "loss_not_finite")]
    checks: tuple[Callable[[RunEvidence], Iterator[Cause]], ...] = (
        diverged,
        learning_rate,
        under_trained,
        overfitted,
        never_stops,
    )
    found = [cause for check in checks for cause in check(evidence)]
    found += collapsed(evidence, {row["task"] for row in rows if row["verdict"] == BETTER})
    return found + list(forgot(rows)) + list(not_proved(rows, target))


def differs(loss: float, other: float) -> bool:
    """Whether `loss` is above `other` by more than the margin of a loss."""
    # Both parts: 3% alone is noise at a loss of 0.1, and 0.02 nats alone is noise at a loss of 3.
    return loss - other > max(LOSS_NATS, LOSS_SHARE * abs(other))


def diverged(evidence: RunEvidence) -> Iterator[Cause]:
    """The run lost updates to NaN, ended above where it began, or its gradients jumped."""
    path = evidence.path
    if path is None:
        return
    lost = int((~np.isfinite(path.train)).sum())
    skipped = int(np.isinf(path.grad_norm).sum())
    if lost or skipped:
        yield Cause("diverged", "updates_lost", {"not_finite": lost, "infinite_gradient": skipped})
    if path.from_untrained and differs(path.heldout[-1], path.heldout[0]):
        yield Cause("diverged", "heldout_rose", {"untrained": path.heldout[0], "last": path.heldout[-1]}, LOSS_MARGIN)
    # Most logs from elsewhere lack a held-out loss of the untrained model, so training loss replaces
    # it. Single batches are noisy, so the first and the last tenth are averaged.
    width = max(3, len(path.train) // 10)
    if not path.from_untrained and len(path.train) >= 10:
        first, last = np.nanmean(path.train[:width]), np.nanmean(path.train[-width:])
        if differs(last, first):
            yield Cause("diverged", "train_rose", {"first": first, "last": last}, LOSS_MARGIN)
    norms = path.grad_norm[np.isfinite(path.grad_norm)]
    if len(norms) >= FEWEST_NORMS and np.median(norms) > 0:
        jumps = float((norms > GRADIENT_JUMP * np.median(norms)).mean())
        if jumps >= GRADIENT_JUMP_SHARE:
            threshold = {"times_median": GRADIENT_JUMP, "share": GRADIENT_JUMP_SHARE}
            yield Cause("diverged", "gradient_jumps", {"share": jumps}, threshold)


def learning_rate(evidence: RunEvidence) -> Iterator[Cause]:
    """Too high or too low, judged by runs that differ only in it, or else by the loss path."""
    record, rate = evidence.outcome.record, evidence.outcome.cell.settings.learning_rate
    own = record.final_heldout_loss
    if own is None:
        return
    # A run at another rate shows what this rate cost; the shape of one path is only a hint.
    if not evidence.neighbours:
        yield from _learning_rate_of_path(evidence)
        return
    best = min(evidence.neighbours, key=lambda other: other.heldout_loss)
    if differs(own, best.heldout_loss):
        # The distance supports the cause: a rate too high moves the adapter too far.
        times_as_far = None
        if evidence.distance and np.isfinite(best.distance):
            times_as_far = evidence.distance / best.distance
        measured = {"loss": own, "learning_rate": rate}
        measured |= {"best_loss": best.heldout_loss, "best_learning_rate": best.learning_rate}
        cause = "rate_too_high" if best.learning_rate < rate else "rate_too_low"
        yield Cause(cause, "loss_above_other_rate", measured | {"times_as_far": times_as_far}, LOSS_MARGIN)


def _learning_rate_of_path(evidence: RunEvidence) -> Iterator[Cause]:
    path = evidence.path
    if path is None or len(path.heldout) < 2:
        return
    first, last, worst = path.heldout[0], path.heldout[-1], np.nanmax(path.heldout[1:])
    # A loss that rose for good is `diverged`; one that came back was thrown off by large steps.
    if differs(worst, first) and not differs(last, first):
        yield Cause("rate_too_high", "rose_and_fell", {"first": first, "worst": worst}, LOSS_MARGIN)
    if 0 <= first - last < BARELY_MOVED * first:
        yield Cause("rate_too_low", "barely_fell", {"first": first, "last": last}, {"share": BARELY_MOVED})


def under_trained(evidence: RunEvidence) -> Iterator[Cause]:
    """The run was still improving when it ended."""
    path = evidence.path
    if path is None or not path.from_untrained or path.trained_measurements < FEWEST_FOR_FALL:
        return
    end = path.heldout_tokens[-1]
    fall = path.heldout[0] - path.heldout[-1]
    late = path.heldout_at((1 - LAST_PART) * end) - path.heldout[-1]
    # The late part alone must exceed the margin of a loss, or a tenth of a tiny fall would count.
    if fall > LOSS_NATS and late >= LAST_PROGRESS * fall and late > LOSS_NATS:
        threshold = {"last_part": LAST_PART, "share": LAST_PROGRESS}
        yield Cause("under_trained", "late_progress", {"share": late / fall}, threshold)


def overfitted(evidence: RunEvidence) -> Iterator[Cause]:
    """Held-out loss turned up while training loss went on falling."""
    path = evidence.path
    if path is None or path.trained_measurements < FEWEST_FOR_TURN or len(path.train) < 10:
        return
    if np.isnan(path.heldout).all():
        return
    low = int(np.nanargmin(path.heldout))
    # A loss that rose from the start never turned: that is `diverged`, not overfitting.
    if path.heldout_tokens[low] == 0 or not differs(path.heldout[-1], path.heldout[low]):
        return
    # Training loss around the turn and at the end, each over about a tenth of the updates.
    at, width = path.heldout_tokens[low], max(3, len(path.train) // 10)
    middle = int(np.searchsorted(path.train_tokens, at))
    before = np.nanmean(path.train[max(0, middle - width) : middle + width])
    after = np.nanmean(path.train[-width:])
    if after < before:
        measured = {"lowest": path.heldout[low], "last": path.heldout[-1], "train_at_lowest": before}
        measured |= {"train_last": after, "epochs": evidence.epochs}
        yield Cause("overfitted", "heldout_turned_up", measured, LOSS_MARGIN)


def unmade(evidence: RunEvidence) -> dict[str, Any] | None:
    """The checks with too few held-out measurements, and their number; None if all were made."""
    path = evidence.path
    count = 0 if path is None else path.trained_measurements
    fewest = {"overfitted": FEWEST_FOR_TURN, "under_trained": FEWEST_FOR_FALL}
    checks = [cause for cause, needed in fewest.items() if count < needed]
    if not checks:
        return None
    return {"checks": checks, "measurements": count}


def collapsed(evidence: RunEvidence, better: set[str]) -> Iterator[Cause]:
    """Answers that loop, or that lost the variety of the base's answers to the same prompts.

    `better`: tasks on which the run is proved better than its base.
    """
    for task, found in evidence.answers.items():
        base = evidence.base_answers.get(task, {})
        repeats, before = found.get("repetition"), base.get("repetition", 0.0)
        # Lists and plans repeat phrases by nature, so a loop must also exceed the base's repetition.
        if repeats is not None and repeats >= REPETITION and repeats >= before + REPETITION_OVER_BASE:
            threshold = {"share": REPETITION, "over_base": REPETITION_OVER_BASE}
            yield Cause("collapsed", "repetition", {"task": task, "share": repeats, "base": before}, threshold)
        variety, of_base = found.get("distinct_2"), base.get("distinct_2")
        # Answers in the requested form share their words, a rambling base does not: with a better
        # score that is no collapse.
        if task not in better and variety is not None and of_base and variety < VARIETY_SHARE * of_base:
            measured = {"task": task, "share": variety, "base": of_base}
            yield Cause("collapsed", "variety", measured, {"share_of_base": VARIETY_SHARE})


def never_stops(evidence: RunEvidence) -> Iterator[Cause]:
    """Answers that run to the length limit or hold special tokens as text.

    Either the chat template or the end token does not fit the model.
    """
    yield from stops(evidence.answers, evidence.base_answers)


def stops(answers: dict[str, dict[str, float]], base: dict[str, dict[str, float]]) -> Iterator[Cause]:
    """The same for any subject: `answers` and `base` map a task to its measures.

    A base itself is given an empty `base`.
    """
    for task, found in answers.items():
        stopped, special = found.get("stopped"), found.get("special_tokens")
        if stopped is not None and stopped < STOPPED:
            measured = {"task": task, "share": stopped, "base": base.get(task, {}).get("stopped")}
            yield Cause("template", "answers_not_ended", measured, {"share": STOPPED})
        if special is not None and special > SPECIAL_TOKENS:
            measured = {"task": task, "per_answer": special}
            yield Cause("template", "special_tokens", measured, {"per_answer": SPECIAL_TOKENS})


def forgot(rows: list[dict[str, Any]]) -> Iterator[Cause]:
    """Proved worse than its base on a retention task."""
    worse = [row for row in rows if row["group"] == "retention" and row["verdict"] == WORSE]
    if worse:
        losses = [{"task": row["task"], "difference": row["difference"]} for row in worse]
        yield Cause("forgot", "proved_losses", {"losses": losses, "seeds": worse[0].get("seeds", 1)})


def not_proved(rows: list[dict[str, Any]], target: str | None) -> Iterator[Cause]:
    """The difference on the target is within what chance explains."""
    for row in [row for row in rows if row["task"] == target and row["verdict"] == UNSURE]:
        measured = {"task": row["task"], "difference": row["difference"], "seeds": row.get("seeds", 1)}
        yield Cause("noise", "difference_not_proved", measured, {"detectable": row["detectable"]})
