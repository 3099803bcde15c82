"""The time that the rest of a call takes: by the plan, corrected by the jobs that have finished."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from loragrid.workflow.terminal.running_job import RunningJob

# A job is (rule, name).
Key = tuple[str, str]
# Stages that take nearly all of the time: without an expectation for one of them, nothing is said.
LONG_RULES = ("train", "score", "score_base", "tune")
# From here on a job's length by the plan is mostly work, which another machine does at another pace.
LONG_SECONDS = 300.0


@dataclass
class TimeLeft:
    """`planned`: seconds of jobs by the plan; `waiting`: jobs that have not begun."""

    planned: Mapping[Key, float] = field(default_factory=dict)
    waiting: set[Key] = field(default_factory=set)
    _taken: dict[Key, float] = field(default_factory=dict)
    _most_at_once: int = 1

    def begin(self, job: RunningJob, *, running: int) -> None:
        """A job begins, so that so many run at once."""
        self.waiting.discard((job.rule, job.name))
        self._most_at_once = max(self._most_at_once, running)

    def finish(self, job: RunningJob) -> None:
        """A job has finished."""
        self._taken[job.rule, job.name] = job.seconds

    def seconds(self, running: Iterable[RunningJob]) -> float | None:
        """Seconds until the last job ends; None if unknown."""
        rest = []
        for rule, name in self.waiting:
            rest.append((rule, self._expected(rule, name)))
        for job in running:
            left, expected = job.seconds_left, self._expected(job.rule, job.name)
            if expected is not None and (left is None or job.rule != "train"):
                # A score job's own number is that of one of its tasks.
                left = max(0.0, expected - job.seconds)
            rest.append((job.rule, left))
        if any(rule in LONG_RULES and seconds is None for rule, seconds in rest):
            return None
        known = [seconds for _, seconds in rest if seconds is not None]
        return max([sum(known) / self._most_at_once, *known]) if known else None

    def _expected(self, rule: str, name: str) -> float | None:
        """Seconds of a job by the plan and the pace so far, or by finished jobs of its stage."""
        planned = self.planned.get((rule, name))
        same = [key for key in self._taken if key[0] == rule]
        if planned is None:
            return sum(self._taken[key] for key in same) / len(same) if same else None
        # How long a short job takes says nothing of a long one, nor the other way round.
        others = [key for key in self._taken if key[0] in LONG_RULES and rule in LONG_RULES]
        known = [key for key in same or others if self.planned.get(key)]
        if not known:
            return planned
        taken = sum(self._taken[key] for key in known) / len(known)
        expected = sum(self.planned[key] for key in known) / len(known)
        if taken <= expected or expected >= LONG_SECONDS:
            return planned * taken / expected
        # What short jobs take longer is the start of a process, which says nothing of other stages.
        return planned + taken - expected if same else planned
