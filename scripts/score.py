"""Score subjects: a run's adapter on its base, or a base untrained. One task after another, each kept when it is done.

    score.py --study FILE --subject SUBJECT [--adapter FOLDER --record FILE] --data FOLDER --out FOLDER [--session-minutes M]
    score.py --study FILE --list FILE    # many subjects, each base loaded once: one JSON object per line with the keys
                                         # subject, data, out and, for a run, adapter and record

Leaves in the output folder items.parquet, answers.jsonl, answers_summary.json, lm_eval/{task}.json and, last,
score.json; and tasks/, from which a killed job goes on.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.errors import Paused, UserError, one_line, print_line, run_main
from loragrid.models.loading import choose_device, precision_notes, prepared_entry
from loragrid.records.history import least_told
from loragrid.records.record import ScoreRecord, TaskScore, write_record
from loragrid.runtime import atomic_files
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.fork_server import hand_over
from loragrid.runtime.provenance import device_info, git_state, versions
from loragrid.runtime.session import SessionClock, add_session_options, session_end
from loragrid.scoring.answers import Prompt, answer_prompts, read_prompts, summarise
from loragrid.scoring.loaded_model import Workbench
from loragrid.scoring.subjects import Identity, Subject, as_subject, identify, read_list
from loragrid.scoring.task_results import items_table, load_task, save_task, write_tables
from loragrid.scoring.trained_prompts import in_training
from loragrid.study.study_file import Study, load_study
from loragrid.study.tasks import HELDOUT_LOSS


def score_subjects(*, study: Study, subjects: Sequence[Subject], session_ends: float | None = None) -> None:
    """Score every subject; those of one model share the loaded base, and each one's adapter is taken off again.

    `session_ends`: when the session ends, seconds of `time.monotonic()`; before a task that might outlive it, `Paused` is
    raised, and what was scored is kept.
    """
    scoring, clock = study.scoring, SessionClock(session_ends)
    members: dict[str, list[tuple[Subject, Identity]]] = {}
    for subject in subjects:
        identity = identify(study, subject)
        if identity.reason is not None:
            write_not_scored(study=study, subject=subject, identity=identity)
        else:
            members.setdefault(identity.model, []).append((subject, identity))
    if not members:
        return
    from loragrid.scoring.lm_eval_tasks import find_tasks

    prompts = read_prompts(Path(scoring.qualitative)) if scoring.qualitative else []
    names = [name for name in scoring.tasks if name != HELDOUT_LOSS]
    tasks = find_tasks(names, limit=scoring.limit)
    for model in list(members):
        # The model's subjects share its data, whose card names the commit that a branch stood for.
        entry = prepared_entry(study.models[model], members[model][0][0].data)
        workbench = Workbench(model, entry, scoring=scoring)
        for subject, identity in members.pop(model):
            workbench.wear(subject.adapter)
            score_subject(
                study=study,
                subject=subject,
                identity=identity,
                tasks=tasks,
                prompts=prompts,
                workbench=workbench,
                clock=clock,
            )


def score_subject(
    *,
    study: Study,
    subject: Subject,
    identity: Identity,
    tasks: dict[str, Any],
    prompts: Sequence[Prompt],
    workbench: Workbench,
    clock: SessionClock,
) -> None:
    """Score one subject on all tasks of the study, reusing what an interrupted job finished, and write its results."""
    started = time.monotonic()
    scores, tables, lm_eval_results = {}, [], {}
    for group in ("target", "retention"):
        for named in getattr(study.scoring, group):
            task = tasks.get(named)
            name = task.name if task else HELDOUT_LOSS
            done = score_task(
                name, task=task, group=group, subject=subject, key=identity.digest, workbench=workbench, clock=clock
            )
            scores[name] = TaskScore(**done["score"] | {"notes": tuple(done["score"]["notes"])})
            lm_eval_results[name] = done["lm_eval"]
            tables += [] if done["items"] is None else [done["items"]]
            report_progress(subject, name, scores[name])
    write_answers(prompts, subject=subject, key=identity.digest, workbench=workbench, clock=clock)
    write_tables(subject.out, tables, lm_eval_results)
    record = ScoreRecord(
        **header(study, subject, identity),
        status="scored",
        reason=None,
        chat_template_sha256=workbench.template.sha256,
        tasks=scores,
        seconds=round(time.monotonic() - started, 3),
        base_commit=workbench.entry.revision,
        notes=precision_notes(workbench.entry, device=choose_device()),
    )
    write_record(subject.out / "score.json", record)


def score_task(
    name: str, *, task: Any, group: str, subject: Subject, key: str, workbench: Workbench, clock: SessionClock
) -> dict[str, Any]:
    """One task's "score", "lm_eval" and "items" (None if it failed): kept from an interrupted job, or scored now and kept.

    A task that raises is recorded as failed with its reason; it is tried again when the job is run again.
    """
    folder, key = subject.out / "tasks", atomic_files.sha256_json([key, name, group, task.digest if task else None])
    kept = load_task(folder, name, key=key)
    if kept is not None:
        return kept
    pause_if_late(subject, name, workbench=workbench, clock=clock)
    workbench.prepare()  # a model that cannot be loaded is no task's failure, and its loading no task's time
    started = time.monotonic()
    result, reason = None, None
    try:
        result = workbench.run(task, data=subject.data)
    except UserError:
        raise
    except Exception as error:  # one task's failure must not take the others with it; it is recorded, not hidden
        reason = one_line(f"{type(error).__name__}: {error}")[:500]
    clock.took(step=time.monotonic() - started)
    items = items_table(name, group, result.items) if result else None
    score = TaskScore(
        group=group,
        status="scored" if result else "failed",
        reason=reason,
        items=items["item"].nunique() if result else 0,
        primary_metric=result.primary_metric if result else None,
        metrics=result.metrics if result else {},
        seconds=round(time.monotonic() - started, 3),
        notes=result.notes if result else (),
    )
    content = {"score": asdict(score), "lm_eval": result.lm_eval if result else None}
    if result:
        save_task(folder, name, key=key, content=content, items=items)
    return content | {"items": items}


def pause_if_late(subject: Subject, name: str, *, workbench: Workbench, clock: SessionClock) -> None:
    """Raise `Paused` if another task as long as the longest so far might outlive the session, or loading the base before it:
    how long that takes, the runs of the same study have told."""
    loading = 0.0
    if not workbench.loaded:
        loading = (
            least_told((subject.out.resolve().parents[1] / "train").glob("*/history.jsonl"), "loading_seconds") or 0.0
        )
    if clock.too_late(loading=loading):
        raise Paused(
            f"scoring of {subject.name} paused before {name} ({clock.left():.0f} s of the session left), "
            "run the same command to go on"
        )


def write_answers(
    prompts: Sequence[Prompt], *, subject: Subject, key: str, workbench: Workbench, clock: SessionClock
) -> None:
    """Answers to the study's own prompts, both wordings, and their means; no files where the study names no prompts."""
    paths = subject.out / "answers.jsonl", subject.out / "answers_summary.json"
    if not prompts:
        for path in paths:
            path.unlink(missing_ok=True)
        return
    key = atomic_files.sha256_json([key, [asdict(prompt) for prompt in prompts]])
    kept = load_task(subject.out / "tasks", "_answers", key=key)
    if kept is None:
        pause_if_late(subject, "the answers to the study's prompts", workbench=workbench, clock=clock)
        tokenizer, batch_size = workbench.template.tokenizer, workbench.scoring.batch_size
        trained = in_training(tokenizer, prompts, subject.data / "train.parquet")
        rows = answer_prompts(workbench.model, tokenizer, prompts, batch_size=batch_size)
        kept = {"answers": [row | {"in_training": known} for row, known in zip(rows, trained, strict=True)]}
        save_task(subject.out / "tasks", "_answers", key=key, content=kept, items=None)
    atomic_files.write_text(paths[0], "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept["answers"]))
    atomic_files.write_json(paths[1], summarise(kept["answers"]))


def write_not_scored(*, study: Study, subject: Subject, identity: Identity) -> None:
    """The record of a subject that cannot be scored, with the reason; its job has done its work then."""
    record = ScoreRecord(
        **header(study, subject, identity),
        status="not_scored",
        reason=identity.reason,
        chat_template_sha256=None,
        tasks={},
        seconds=0.0,
    )
    write_record(subject.out / "score.json", record)
    print_line(f"[{subject.name}] not scored: {identity.reason}")


def header(study: Study, subject: Subject, identity: Identity) -> dict[str, Any]:
    """What every score record says, scored or not."""
    return {
        "study": study.name,
        "subject": subject.name,
        "kind": identity.kind,
        "model": identity.model,
        "base": identity.base,
        "adapter_sha256": identity.adapter_sha256,
        "precision": study.models[identity.model].precision,
        "versions": versions(),
        "git": git_state(),
        "device": device_info(),
        "code": code_digest("score"),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def report_progress(subject: Subject, name: str, score: TaskScore) -> None:
    """One line per task, readable when several jobs write to one terminal."""
    if score.status == "failed":
        line = f"failed: {score.reason}"
    else:
        value = score.metrics[score.primary_metric]["value"]
        line = f"{score.primary_metric} {value:.4g} ({score.items} items, {score.seconds:.1f} s)"
    print_line(f"[{subject.name}] {name}: {line}")


def set_up_process(threads: int) -> None:
    """Before torch is imported: threads as the study says, no progress bars (a job's log is read, not watched)."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ |= {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    import torch

    torch.set_num_threads(threads)


def main() -> None:
    """Map the command line to `score_subjects`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--subject", help="run id or base id")
    what.add_argument(
        "--list", type=Path, help="file of JSON lines: subject, data, out and, for a run, adapter, record"
    )
    for name in ("adapter", "record", "data", "out"):
        parser.add_argument(f"--{name}")
    add_session_options(parser)
    options = parser.parse_args()
    if options.subject and not (options.data and options.out):
        parser.error("--subject needs --data and --out")
    study = load_study(options.study)
    one = as_subject(options.subject, options.adapter, options.record, options.data or "", options.out or "")
    set_up_process(study.scoring.threads)
    score_subjects(
        study=study,
        subjects=read_list(options.list) if options.list else [one],
        session_ends=session_end(options, session_minutes=study.training.session_minutes),
    )


if __name__ == "__main__":
    hand_over()
    run_main(main)
