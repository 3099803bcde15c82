"""What the display knows of a study before its jobs begin: the header's lines, and the seconds of each job by the plan."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from loragrid.errors import UserError
from loragrid.planning.plan_inputs import gather_inputs
from loragrid.planning.plan_rows import base_rows, plan_row
from loragrid.planning.short_jobs import SHORT_JOB_SECONDS, START_SECONDS
from loragrid.study.run_names import subject_at
from loragrid.study.study_file import Study
from loragrid.workflow.terminal.running_job import duration
from loragrid.workflow.terminal.time_left import LONG_RULES, Key

# Rules that print text of their own, or nothing, and have no line of the display.
SILENT_RULES = ("all", "plan", "next")
# The plan of each cell takes about 5 ms.
MOST_PLANNED_CELLS = 1000
SHOWN_BASES = 4


@dataclass(frozen=True, kw_only=True)
class CallPlan:
    """What one call of Snakemake does: its `jobs`, the header, and seconds of jobs by the plan.

    `unshown`: the number of jobs that have no line.
    """

    jobs: Collection[Key]
    unshown: int = 0
    header: tuple[str, ...] = ()
    planned_seconds: dict[Key, float] = field(default_factory=dict)


def plan_call(study: Study, jobs: Collection[Key], *, results: Path, session_minutes: float | None) -> CallPlan:
    """The plan of a call that does these jobs, (rule, name) each."""
    called, jobs = len(jobs), [job for job in jobs if job[0] not in SILENT_RULES]
    seconds: dict[Key, float] = {}
    device = ""
    if len(study.cells) <= MOST_PLANNED_CELLS and any(rule in LONG_RULES for rule, _ in jobs):
        try:
            device, seconds = _planned_seconds(study, results, session_minutes)
        except UserError:
            pass  # the stage that meets it says it with its fix
    seconds |= {job: SHORT_JOB_SECONDS[job[0]] for job in jobs if job[0] in SHORT_JOB_SECONDS}
    header = _header(study, jobs, results=results, device=device, seconds=seconds)
    return CallPlan(jobs=jobs, unshown=called - len(jobs), header=header, planned_seconds=seconds)


def _planned_seconds(study: Study, results: Path, session_minutes: float | None) -> tuple[str, dict[Key, float]]:
    """The device that the plan is for, and the seconds of each job of known length."""
    inputs = gather_inputs(study, results=results, session_minutes=session_minutes)
    rows = [plan_row(inputs, cell) for cell in study.cells]
    seconds: dict[Key, float] = {}
    times = 1 + sum(share < 1 for share in study.scoring.at)
    for row in rows:
        if row["train_hours"] is not None:
            seconds["train", row["run"]] = 3600 * (row["train_hours"] + (row["start_hours"] or 0))
        if row["score_hours"] is not None:
            # The plan's is that of all subjects of a run: its end, and those along its budget.
            for share in (1.0, *study.scoring.at):
                seconds["score", subject_at(row["run"], share)] = 3600 * row["score_hours"] / times
    for row in base_rows(inputs, rows):
        if row["score_hours"] is not None:
            seconds["score_base", row["base"]] = 3600 * row["score_hours"]
    return inputs.device.name, seconds


def _header(
    study: Study, jobs: Collection[Key], *, results: Path, device: str, seconds: dict[Key, float]
) -> tuple[str, ...]:
    models = list(dict.fromkeys(cell.model for cell in study.cells))
    named = ", ".join(models[:SHOWN_BASES]) + (" …" if len(models) > SHOWN_BASES else "")
    runs, bases, tasks = len(study.cells), len(models), len(study.scoring.tasks)
    what = f"{_count(runs, 'run')} of {_count(bases, 'base model')} ({named}), scored on {_count(tasks, 'task')}"
    to_train = sum(rule == "train" for rule, _ in jobs)
    do = f"{_count(len(jobs), 'job')} to do"
    if to_train < runs:
        do += f" ({to_train} of {runs} runs to train)"
    long = [job for job in jobs if job[0] in LONG_RULES]
    if long and all(job in seconds for job in long):
        total = START_SECONDS + sum(seconds.get(job, 0.0) for job in jobs)
        do += f"; by the plan they take about {duration(total)}, one at a time on {device}"
    where = f"logs: {results}/logs/ | Ctrl-C pauses; the same command continues"
    return f"{study.name}: {study.title}", what, do, where


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"
