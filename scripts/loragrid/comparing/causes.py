"""Why a tuned model is worse, or could be better: causes with their evidence and the threshold that it passed.

Several causes may hold for a run; none at all is an answer too. Thresholds stand here once, and the report shows each
beside the figure that passed it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from loragrid.comparing.run_evidence import RunEvidence
from loragrid.formatting import change, detectable, listed, number, plain_name, score, setting

# ASSUME: a held-out loss differs from another when they are 3% and 0.02 nats apart.
LOSS_SHARE, LOSS_NATS = 0.03, 0.02
# ASSUME: a run is under-trained when a tenth of all its progress came in the last fifth of its tokens.
LAST_PART, LAST_PROGRESS = 0.2, 0.10
# ASSUME: a run that took off less than 2% of the held-out loss has not moved.
BARELY_MOVED = 0.02
# ASSUME: answers loop when half of their 4-grams are repeats, and lose variety when it falls under half of the base's.
REPETITION, REPETITION_OVER_BASE, VARIETY_SHARE = 0.5, 0.2, 0.5
# ASSUME: a model does not stop when fewer than half of its answers end by themselves; special tokens belong in no answer.
STOPPED, SPECIAL_TOKENS = 0.5, 0.05
# ASSUME: a gradient norm that is 20 times the median is a jump; one in twenty such updates is an unstable run.
GRADIENT_JUMP, GRADIENT_JUMP_SHARE = 20.0, 0.05
# Held-out measurements after training began: a turn shows in two, a slowing fall in three.
FEWEST_FOR_TURN, FEWEST_FOR_FALL = 2, 3

NAMES = {
    "diverged": "Diverged",
    "rate_too_high": "Learning rate too high",
    "rate_too_low": "Learning rate too low",
    "under_trained": "Under-trained",
    "overfitted": "Overfitted",
    "forgot": "Forgot",
    "collapsed": "Collapsed",
    "template": "Template or end of text",
    "precision": "Precision",
    "broken_base": "Broken base, or not for this text",
    "at_chance": "Base at chance",
    "leak": "Leak",
    "noise": "Not proved",
}


@dataclass(frozen=True)
class Cause:
    """A cause (key of `NAMES`), the evidence in words with its figures, and the threshold in words."""

    cause: str
    evidence: str
    threshold: str


def diagnose(
    evidence: RunEvidence, rows: list[dict[str, Any]], *, units: dict[str, str], target: str | None
) -> list[Cause]:
    """The causes that hold for one run. `rows`: its comparisons with its base; `units`: task → share or plain."""
    if evidence.outcome.status == "diverged":
        return [
            Cause("diverged", evidence.outcome.reason or "the loss became NaN or infinite", "any NaN or infinite loss")
        ]
    checks: tuple[Callable[[RunEvidence], Iterator[Cause]], ...] = (
        diverged,
        learning_rate,
        under_trained,
        overfitted,
        never_stops,
    )
    found = [cause for check in checks for cause in check(evidence)]
    found += collapsed(evidence, {row["task"] for row in rows if row["verdict"] == "better"})
    return found + list(forgot(rows, units)) + list(noise(rows, units, target))


def differs(loss: float, other: float) -> bool:
    """Whether `loss` is above `other` by more than the margin of a loss."""
    return loss - other > max(LOSS_NATS, LOSS_SHARE * abs(other))


MARGIN = f"more than {LOSS_SHARE:.0%} and {LOSS_NATS} nats"


def diverged(evidence: RunEvidence) -> Iterator[Cause]:
    """The run ended above where it began, lost updates to NaN, or its gradients jumped about."""
    path = evidence.path
    if path is None:
        return
    lost = int((~np.isfinite(path.train)).sum())
    skipped = int(np.isinf(path.grad_norm).sum())
    if lost or skipped:
        text = f"{lost} updates with a loss that is no number, {skipped} with an infinite gradient (skipped in fp16)"
        yield Cause("diverged", text, "any")
    if path.from_untrained and differs(path.heldout[-1], path.heldout[0]):
        text = f"held-out loss rose from {number(path.heldout[0])} untrained to {number(path.heldout[-1])}"
        yield Cause("diverged", text, f"a rise of {MARGIN} over the untrained model")
    width = max(3, len(path.train) // 10)
    # Nothing untrained to compare with, as in most logs from elsewhere.
    if not path.from_untrained and len(path.train) >= 10:
        first, last = np.nanmean(path.train[:width]), np.nanmean(path.train[-width:])
        if differs(last, first):
            text = f"training loss rose from {number(first)} to {number(last)}"
            yield Cause("diverged", text, f"a rise of {MARGIN} over its first updates")
    norms = path.grad_norm[np.isfinite(path.grad_norm)]
    if len(norms) >= 20 and np.median(norms) > 0:
        jumps = float((norms > GRADIENT_JUMP * np.median(norms)).mean())
        if jumps >= GRADIENT_JUMP_SHARE:
            text = f"gradient norm over {GRADIENT_JUMP:g} times its median in {score(jumps, 'share')} of updates"
            yield Cause("diverged", text, f"{GRADIENT_JUMP_SHARE:.0%} of updates")


def learning_rate(evidence: RunEvidence) -> Iterator[Cause]:
    """Too high or too low, seen by the runs that differ in nothing else; without such runs by the path alone."""
    record, rate = evidence.outcome.record, evidence.outcome.cell.learning_rate
    own = record.final_heldout_loss
    if own is None:
        return
    if evidence.neighbours:
        best_rate, best, best_distance = min(evidence.neighbours, key=lambda other: other[1])
        if differs(own, best):
            cause = "rate_too_high" if best_rate < rate else "rate_too_low"
            text = f"held-out loss {number(own)} at {setting(rate)}, {number(best)} at {setting(best_rate)}"
            if evidence.distance and np.isfinite(best_distance):
                text += f"; the adapter moved {number(evidence.distance / best_distance, 2)} times as far"
            yield Cause(cause, text, f"{MARGIN} above a run that differs in nothing else")
        return
    path = evidence.path
    if path is None or len(path.heldout) < 2:
        return
    first, last, worst = path.heldout[0], path.heldout[-1], np.nanmax(path.heldout[1:])
    if differs(worst, first) and not differs(last, first):
        text = f"held-out loss first rose from {number(first)} to {number(worst)}"
        yield Cause("rate_too_high", text, f"a rise of {MARGIN} on the way")
    if 0 <= first - last < BARELY_MOVED * first:
        text = f"held-out loss fell from {number(first)} to {number(last)} only"
        yield Cause("rate_too_low", text, f"a fall of less than {BARELY_MOVED:.0%}")


def under_trained(evidence: RunEvidence) -> Iterator[Cause]:
    """Still getting better when it ended."""
    path = evidence.path
    if path is None or not path.from_untrained or path.trained_measurements < FEWEST_FOR_FALL:
        return
    end = path.heldout_tokens[-1]
    fall = path.heldout[0] - path.heldout[-1]
    late = path.heldout_at((1 - LAST_PART) * end) - path.heldout[-1]
    if fall > LOSS_NATS and late >= LAST_PROGRESS * fall and late > LOSS_NATS:
        text = (
            f"{score(late / fall, 'share')} of the fall in held-out loss came in the last {LAST_PART:.0%} of the tokens"
        )
        yield Cause("under_trained", text, f"{LAST_PROGRESS:.0%} or more")


def overfitted(evidence: RunEvidence) -> Iterator[Cause]:
    """Held-out loss turned up while training loss went on falling. A loss that rose from the untrained model's on is none."""
    path = evidence.path
    if path is None or path.trained_measurements < FEWEST_FOR_TURN or len(path.train) < 10:
        return
    if np.isnan(path.heldout).all():
        return
    low = int(np.nanargmin(path.heldout))
    if path.heldout_tokens[low] == 0 or not differs(path.heldout[-1], path.heldout[low]):
        return
    at, width = path.heldout_tokens[low], max(3, len(path.train) // 10)
    middle = int(np.searchsorted(path.train_tokens, at))
    before = np.nanmean(path.train[max(0, middle - width) : middle + width])
    after = np.nanmean(path.train[-width:])
    if after < before:
        repeats = (
            f"; each row was seen {number(evidence.epochs, 2)} times" if evidence.epochs and evidence.epochs > 1 else ""
        )
        text = (
            f"held-out loss rose from its least, {number(path.heldout[low])}, to {number(path.heldout[-1])} while training "
            f"loss fell from {number(before)} to {number(after)}{repeats}"
        )
        yield Cause("overfitted", text, f"a rise of {MARGIN} with training loss falling")


def unmade(evidence: RunEvidence) -> str | None:
    """Which checks of the loss path could not be made for want of measurements; None where all were."""
    path = evidence.path
    count = 0 if path is None else path.trained_measurements
    missing = [
        name
        for name, fewest in (("overfitting", FEWEST_FOR_TURN), ("under-training", FEWEST_FOR_FALL))
        if count < fewest
    ]
    if not missing:
        return None
    return f"not checked for {listed(missing)}: {count} held-out measurement{'' if count == 1 else 's'} after its start"


def collapsed(evidence: RunEvidence, better: set[str]) -> Iterator[Cause]:
    """Answers that loop, or have lost their variety against the base's answers to the same prompts. Answers in one form are
    less varied than a base's rambling and yet what was asked for: on tasks in `better` variety says nothing."""
    for task, found in evidence.answers.items():
        base, name = evidence.base_answers.get(task, {}), plain_name(task)
        loops, before = found.get("repetition"), base.get("repetition", 0.0)
        if loops is not None and loops >= REPETITION and loops >= before + REPETITION_OVER_BASE:
            text = f"{score(loops, 'share')} of the 4-grams in answers to {name} are repeats, base {score(before, 'share')}"
            yield Cause(
                "collapsed", text, f"{REPETITION:.0%}, and {REPETITION_OVER_BASE * 100:.0f} points over the base"
            )
        variety, of_base = found.get("distinct_2"), base.get("distinct_2")
        if task not in better and variety is not None and of_base and variety < VARIETY_SHARE * of_base:
            text = f"distinct bigrams in answers to {name} {score(variety, 'share')}, base {score(of_base, 'share')}"
            yield Cause(
                "collapsed", text, f"variety under {VARIETY_SHARE:.0%} of the base’s, with a score that is not better"
            )


def never_stops(evidence: RunEvidence) -> Iterator[Cause]:
    """Answers that run on to the limit, or hold special tokens as text: the template or the end token does not fit."""
    yield from stops(evidence.answers, evidence.base_answers)


def stops(answers: dict[str, dict[str, float]], base: dict[str, dict[str, float]]) -> Iterator[Cause]:
    """The same for any subject; a base is given with nothing to compare."""
    for task, found in answers.items():
        before = base.get(task, {})
        stopped = found.get("stopped")
        if stopped is not None and stopped < STOPPED:
            beside = f", base {score(before['stopped'], 'share')}" if "stopped" in before else ""
            text = f"{score(stopped, 'share')} of answers to {plain_name(task)} ended by themselves{beside}"
            yield Cause("template", text, f"under {STOPPED:.0%}")
        special = found.get("special_tokens")
        if special is not None and special > SPECIAL_TOKENS:
            text = f"{number(special, 2)} special tokens per answer to {plain_name(task)}"
            yield Cause("template", text, f"more than {SPECIAL_TOKENS:g}")


def forgot(rows: list[dict[str, Any]], units: dict[str, str]) -> Iterator[Cause]:
    """Proved to be worse than its base on a retention task."""
    worse = [row for row in rows if row["group"] == "retention" and row["verdict"] == "worse"]
    if worse:
        parts = [f"{plain_name(r['task'])} {change(r['difference'], units[r['task']], words=True)}" for r in worse]
        yield Cause("forgot", listed(parts) + _seeds(worse[0]), "a proved loss on a retention task")


def noise(rows: list[dict[str, Any]], units: dict[str, str], target: str | None) -> Iterator[Cause]:
    """The target's difference is within what the test can tell from chance."""
    for row in [row for row in rows if row["task"] == target and row["verdict"] == "can't tell"]:
        unit = units[row["task"]]
        text = f"no difference proved: {plain_name(row['task'])} {change(row['difference'], unit, words=True)}"
        yield Cause("noise", text + _seeds(row), f"reliably found, see How sure: {detectable(row['detectable'], unit)}")


def _seeds(row: dict[str, Any]) -> str:
    """A note where the row is a mean over the runs of several seeds."""
    return f" (mean of {row['seeds']} seeds)" if row.get("seeds", 1) > 1 else ""


def as_dicts(causes: list[Cause]) -> list[dict[str, Any]]:
    """Causes for JSON, with their names."""
    return [
        {"cause": c.cause, "name": NAMES[c.cause], "evidence": c.evidence, "threshold": c.threshold} for c in causes
    ]
