"""A job while it runs, and what is said of it: its name, its progress, its result, why it failed."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loragrid.records.failures import log_tail, logged_failure
from loragrid.workflow.environment import PAUSES

# What the line of a paused job has in it.
PAUSED = (*PAUSES, "stopped by Ctrl-C")
# The hash at the end of the id of a run or data set, and the first word of a base's.
HASH, BASE_PREFIX = re.compile(r"[_-][0-9a-f]{8}(?=@|$)"), re.compile(r"^base-(?=.+-[0-9a-f]{8}$)")
VERBS = {
    "train": "trained",
    "score": "scored",
    "score_base": "scored base",
    "prepare_data": "prepared",
    "find_contamination": "looked for test items in",
    "compare": "compared",
    "find_next": "looked for open questions",
    "report": "wrote the page",
}


@dataclass
class RunningJob:
    """A job that Snakemake has started; `done` of `total` units and `text` are its last progress, `seconds_left` its own."""

    rule: str
    name: str = ""
    log: str = ""
    outputs: tuple[str, ...] = ()
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    total: int = 0
    unit: str = ""
    text: str = ""
    seconds_left: float | None = None
    last_line: str = ""
    lines_printed: int = 0
    line_at: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "RunningJob":
        """The job of Snakemake's event that a job begins."""
        return cls(
            rule=info["rule_name"],
            name=job_name(info["wildcards"]),
            log=next(iter(info["log"] or ()), ""),
            outputs=tuple(info["output"] or ()),
        )

    @property
    def seconds(self) -> float:
        """Seconds since its begin."""
        return time.monotonic() - self.began

    @property
    def label(self) -> str:
        """Its stage and the short name of what it works on."""
        return f"{self.rule} {short_name(self.name)}".strip().replace("score_base", "score base")

    def update(self, progress: Mapping[str, Any]) -> None:
        """Take over how far the job says it is."""
        self.done, self.total, self.unit = progress["done"], progress["total"], progress["unit"]
        self.text, self.seconds_left = progress["text"], progress["seconds_left"]

    def progress(self) -> str:
        """How far it is, as text; empty before it has said so."""
        parts = [f"{self.done:,} of {self.total:,} {self.unit}", self.text] if self.total else [self.text]
        if self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        return ", ".join(filter(None, parts))


def job_name(wildcards: Mapping[str, str]) -> str:
    """What a job works on: a run, a subject or a data set; empty for a job on the whole study."""
    return next(iter(wildcards.values()), "")


def short_name(name: str) -> str:
    """The id of a run, base or data set without its hash, which no line has room for."""
    return HASH.sub("", BASE_PREFIX.sub("", name))


def duration(seconds: float) -> str:
    """A length of time as people say it: 40 s, 3 min, 2 h 10 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def finished_line(job: RunningJob) -> str:
    """One line on a finished job: what it did, its result, how long it took."""
    verb = VERBS.get(job.rule)
    what = f"{verb} {short_name(job.name)}".strip() if verb else job.label.replace("_", " ")
    result = _result(job)
    if result:
        what = f"{what}: {result}"
    return f"{what} ({duration(job.seconds)})"


def failed_line(job: RunningJob, exit_text: str) -> str:
    """One line on a job that failed or paused; `exit_text` is what Snakemake says of its exit."""
    if pause := pause_line(job):
        return f"{job.label} paused: {pause}"
    if "died with <Signals.SIGINT" in exit_text:
        return f"{job.label} stopped by Ctrl-C before its work began"
    reason = logged_failure(Path(job.log)) if job.log else None
    if reason is None:
        reason = _exit_reason(exit_text)
        if last := next(iter(log_tail(Path(job.log))[-1:]), "") if job.log else "":
            reason += f"; its last line: {last[:200]}"
    reason = reason.removeprefix("failed: ")
    where = f" (log: {job.log})" if job.log else ""
    return f"{job.label} failed: {reason}{where}"


def pause_line(job: RunningJob) -> str | None:
    """The last line of a job's log if it says that the job paused."""
    lines = [line for line in log_tail(Path(job.log)) if any(mark in line for mark in PAUSED)] if job.log else []
    return lines[-1] if lines and logged_failure(Path(job.log)) is None else None


def _exit_reason(text: str) -> str:
    if signal := re.search(r"died with <Signals\.(\w+)", text):
        killed = f"killed by {signal[1]}"
        return f"{killed}, as the system does when memory runs out" if signal[1] == "SIGKILL" else killed
    if status := re.search(r"non-zero exit status (\d+)", text):
        return f"exit status {status[1]} without a reason in its log"
    return "no reason in its log"


def _result(job: RunningJob) -> str:
    """The result that a finished job left, from its record; the last line of its log if it has none."""
    record = {}
    if job.rule in ("train", "score", "score_base") and job.outputs:
        try:
            record = json.loads(Path(job.outputs[0]).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            record = {}  # a drive that is late; the result is not worth a failure
    if job.rule == "train" and record:
        return _trained(record)
    if record:
        return _scored(record)
    line = next(iter(log_tail(Path(job.log))[-1:]), "") if job.log else ""
    if line == job.last_line:
        return ""  # it is on the terminal already
    # The line begins with what it is about.
    return line.partition(": ")[2] or line


def _trained(record: dict[str, Any]) -> str:
    if record["status"] != "finished":
        return f"{record['status']}: {record['reason']}"
    first, last = record["first_heldout_loss"], record["final_heldout_loss"]
    losses = "" if None in (first, last) else f", held-out loss {first:.4f} → {last:.4f}"
    return f"{record['steps']:,} steps{losses}"


def _scored(record: dict[str, Any]) -> str:
    if record["status"] != "scored":
        return f"not scored: {record['reason']}"
    parts = []
    for name, task in record["tasks"].items():
        if task["status"] != "scored":
            parts.append(f"{name} failed: {task['reason']}")
        else:
            parts.append(f"{name} {task['metrics'][task['primary_metric']]['value']:.3g}")
    return ", ".join(parts)
