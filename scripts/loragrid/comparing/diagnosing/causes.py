"""Causes of a run's results: codes with the numbers that show them, and which of them are symptoms.

Several causes may hold for a run; none at all is an answer too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

# ASSUME: a model does not stop when fewer than half of its answers end by themselves.
STOPPED = 0.5
# Cause → what follows from it, roots first. A learning rate that is too high makes a run diverge, a run
# that diverged forgets and babbles, and a model that repeats itself does not end its answers.
FOLLOWS = {
    "broken_base": {"collapsed", "template"},
    "rate_too_high": {"diverged", "collapsed", "template", "forgot", "under_trained"},
    "diverged": {"collapsed", "template", "forgot", "under_trained"},
    "warmup": {"rate_too_low", "under_trained"},
    "rate_too_low": {"under_trained"},
    "collapsed": {"template"},
}


@dataclass(frozen=True)
class Cause:
    """One cause of one run. `cause` and `evidence` are codes: what is wrong, and what shows it.

    `measured` holds the numbers of the evidence, `threshold` those that they passed; the report
    words both. `symptom_of` names another cause of the run from which this one follows.
    """

    cause: str
    evidence: str
    measured: dict[str, Any] = field(default_factory=dict)
    threshold: dict[str, Any] = field(default_factory=dict)
    symptom_of: str | None = None


def with_symptoms(causes: Iterable[Cause]) -> list[Cause]:
    """The causes of one run, the symptoms marked and behind the causes."""
    causes = list(causes)
    held = {cause.cause for cause in causes}
    marked = [replace(cause, symptom_of=_root_of(cause, held)) for cause in causes]
    return sorted(marked, key=lambda cause: cause.symptom_of is not None)


def _root_of(cause: Cause, held: set[str]) -> str | None:
    """The first of the held causes that explains this one, or None."""
    for root, symptoms in FOLLOWS.items():
        if root in held and cause.cause in symptoms:
            return root
    if cause.cause == "template" and not _base_stops(cause):
        # The run only kept what the base does: any other fault explains it sooner than its own template.
        return next((other for other in sorted(held - {"template"})), None)
    return None


def _base_stops(cause: Cause) -> bool:
    """Whether the base ends its answers under the same template, as far as it was asked."""
    share = cause.measured.get("base")
    return share is None or share >= STOPPED
