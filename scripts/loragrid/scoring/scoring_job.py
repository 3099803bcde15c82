"""The job of scoring one subject: finished tasks are kept, and it pauses before the session ends."""

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loragrid.errors import Paused, UserError, full_disk_failure, one_line
from loragrid.full_disk import is_full_disk
from loragrid.models.loading import torch_device
from loragrid.models.model_files import base_facts
from loragrid.records.history import minimum_logged
from loragrid.records.record import TaskScore
from loragrid.runtime import atomic_files
from loragrid.runtime.progress_lines import working
from loragrid.runtime.session import SessionClock
from loragrid.scoring.answers import summarise
from loragrid.scoring.heldout.kept_losses import OF_RUN, KeptLosses, Measured, arithmetic, base_losses, loss_key
from loragrid.scoring.heldout.losses import loss_result, read_rows
from loragrid.scoring.lm_eval_tasks import StudyTask
from loragrid.scoring.loaded_model import LoadedModel
from loragrid.scoring.prompts import Prompt, in_training
from loragrid.scoring.running_task import KeptAnswers, RunningTask
from loragrid.scoring.subjects import Subject, SubjectIdentity
from loragrid.scoring.task_results import TaskResult, file_name, items_table, load_task, save_task
from loragrid.scoring.vllm_engine.vllm_model import VllmModel


@dataclass(frozen=True)
class ScoringJob:
    """One subject, the model it is scored on, and the session's clock."""

    subject: Subject
    identity: SubjectIdentity
    model: LoadedModel | VllmModel
    clock: SessionClock


def score_task(job: ScoringJob, name: str, task: StudyTask | None, *, group: str) -> dict[str, Any]:
    """One task's "score", "lm_eval" and "items", from an interrupted job or scored and kept now.

    A task that raises is recorded as failed with its reason ("items" is None) and not kept, so the
    next job tries it again.
    """
    folder = job.subject.out / "tasks"
    key = atomic_files.sha256_json([job.identity.digest, name, group, task.digest if task else None])
    kept = load_task(folder, name, key=key)
    if kept is not None:
        return kept
    pause_if_late(job, name)
    running = _running(job, name, key)
    result, reason, seconds = _run(job, task, running)
    if result is None:
        failed = TaskScore(
            group=group,
            status="failed",
            reason=reason,
            items=0,
            primary_metric=None,
            metrics={},
            seconds=round(seconds, 3),
        )
        return {"score": asdict(failed), "lm_eval": None, "items": None}
    items = items_table(name, group, result.items)
    score = TaskScore(
        group=group,
        status="scored",
        reason=None,
        items=items["item"].nunique(),
        primary_metric=result.primary_metric,
        metrics=result.metrics,
        seconds=round(seconds, 3),
        notes=result.notes,
    )
    content = {"score": asdict(score), "lm_eval": result.lm_eval}
    save_task(folder, name, key=key, content=content, items=items)
    running.kept.remove()
    return content | {"items": items}


def _running(job: ScoringJob, name: str, key: str, *, what: str | None = None) -> RunningTask:
    """The task of this name with the answers that an interrupted job has kept; `what` messages call it."""
    kept = KeptAnswers(job.subject.out / "tasks" / f"{file_name(name)}.answers", key)
    return RunningTask(f"[{job.subject.name}] {what or name}", kept)


def _run(job: ScoringJob, task: StudyTask | None, running: RunningTask) -> tuple[TaskResult | None, str | None, float]:
    """The task's result, or None and the reason of its failure; and the seconds it took."""
    # Loading comes first: a model that cannot be loaded is not a failed task, and loading is not
    # the task's time.
    job.model.load()
    started = time.monotonic()
    result, reason = None, None
    try:
        with working(running.label):
            result = _heldout(job, running) if task is None else job.model.score(task, running)
    except UserError:
        raise
    except Exception as error:  # one failed task must not stop the others; its reason is recorded
        # A full disk is no fault of the task, and the next job scores the task again.
        if is_full_disk(error):
            raise full_disk_failure(error, job.subject.out) from error
        reason = one_line(f"{type(error).__name__}: {error}")[:500]
    seconds = time.monotonic() - started
    # The session clock treats a task as a step: none is started that might outlive the session.
    job.clock.record_duration(step=seconds)
    return result, reason, seconds


def _heldout(job: ScoringJob, running: RunningTask) -> TaskResult:
    """The held-out loss, measured only if no other job has measured it with the same arithmetic."""
    model, rows = job.model, job.subject.data / "heldout.parquet"
    kept = _kept_losses(job, rows)
    ids, _ = read_rows(rows)
    is_shared = kept is not None and job.identity.kind == "base"
    with kept.locked() if is_shared else nullcontext():
        measured = kept.read(rows=len(ids)) if kept is not None else None
        if measured is None:
            began = time.monotonic()
            measured = Measured(model.heldout_losses(rows, running), time.monotonic() - began)
            if is_shared:
                kept.write(measured)
    return loss_result(model.template.tokenizer, rows, measured.losses)


def _kept_losses(job: ScoringJob, rows: Path) -> KeptLosses | None:
    """The file that may hold the subject's losses; None where training computes otherwise than scoring."""
    subject, identity = job.subject, job.identity
    # Training computes with transformers.
    if job.model.scoring.engine != "hf":
        return None
    # Half precisions are cast to in other places of a model while it trains.
    if identity.entry.precision != "32bit" or identity.kind == "adopted" or identity.share < 1:
        return None
    key = loss_key(
        base_sha256=base_facts(identity.entry).sha256,
        weights_sha256=identity.weights_sha256,
        rows=rows,
        computed=arithmetic(precision="32bit", compute_dtype="fp32", device=torch_device()),
    )
    if identity.kind == "base":
        return base_losses(subject.out, key)
    return KeptLosses(subject.trained / OF_RUN, key)


def pause_if_late(job: ScoringJob, name: str) -> None:
    """Raise `Paused` if loading the base and a task as long as the longest may outlive the session."""
    loading_seconds = 0.0
    if not job.model.base_in_memory:
        # Nothing was loaded in this job yet, so the estimate comes from the training runs of the
        # same study.
        histories = (job.subject.out.resolve().parents[1] / "train").glob("*/history.jsonl")
        loading_seconds = minimum_logged(histories, "loading_seconds") or 0.0
    if job.clock.too_late(loading=loading_seconds):
        raise Paused(
            f"scoring of {job.subject.name} paused before {name} ({job.clock.left():.0f} s of the session left), "
            "run the same command to go on"
        )


def write_answers(job: ScoringJob, prompts: Sequence[Prompt]) -> None:
    """Write answers.jsonl and answers_summary.json, or remove them if the study has no prompts."""
    out, model = job.subject.out, job.model
    answers, summary = out / "answers.jsonl", out / "answers_summary.json"
    if not prompts:
        answers.unlink(missing_ok=True)
        summary.unlink(missing_ok=True)
        return
    key = atomic_files.sha256_json([job.identity.digest, [asdict(prompt) for prompt in prompts]])
    kept = load_task(out / "tasks", "_answers", key=key)
    if kept is None:
        pause_if_late(job, "the answers to the study's prompts")
        trained = in_training(model.template.tokenizer, prompts, job.subject.data / "train.parquet")
        running = _running(job, "_answers", key, what="answers to the study's prompts")
        rows = model.answers(prompts, running)
        rows = [row | {"in_training": known} for row, known in zip(rows, trained, strict=True)]
        kept = {"answers": rows}
        save_task(out / "tasks", "_answers", key=key, content=kept, items=None)
        running.kept.remove()
    atomic_files.write_text(answers, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept["answers"]))
    atomic_files.write_json(summary, summarise(kept["answers"]))
