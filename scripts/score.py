"""Score bases, runs and adopted adapters on the study's tasks, one task after another.

    score.py --study FILE --subject SUBJECT [--trained FOLDER] --data FOLDER --out FOLDER
    score.py --study FILE --list FILE

A run is given with the folder of its record and weights; `RUN@0.5` is the run as it was after half
of its budget. With --list, each base is loaded once for all subjects of the file: one JSON object
per line with the keys subject, data, out and, for a run, trained.

Writes items.parquet, answers.jsonl, answers_summary.json, lm_eval/{task}.json, sealed.json (their digests) and,
last, score.json to the output folder; and tasks/, from which an interrupted job continues: with the next task, and
within a task that writes answers with the next answer.
"""

from loragrid.runtime.delegation.client import delegate_job

if __name__ == "__main__":
    delegate_job()  # before the imports below, which the process that takes it has made or makes anyway

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.backup.results import add_backup_option, copy_result
from loragrid.errors import log_option, print_line, print_result, run_main, summary_line
from loragrid.models.adapter_files import MODEL
from loragrid.models.loading import precision_notes, torch_device
from loragrid.records.record import ScoreRecord, TaskScore, write_sealed_record
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.cpu_speed import cpu_has_bf16
from loragrid.runtime.delegation.residency import kept
from loragrid.runtime.gpu_locks import take_one_gpu
from loragrid.runtime.progress_lines import working
from loragrid.runtime.provenance import device_info, git_state, versions
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.runtime.session import SessionClock, add_session_options, ctrl_c_ends_within, session_end
from loragrid.runtime.torch_memory import set_up_torch
from loragrid.scoring.lm_eval_tasks import StudyTask, find_tasks
from loragrid.scoring.loaded_model import LoadedModel
from loragrid.scoring.prompts import Prompt, read_prompts
from loragrid.scoring.scoring_job import ScoringJob, score_task, write_answers
from loragrid.scoring.subjects import Subject, SubjectIdentity, identify, make_subject, read_subjects
from loragrid.scoring.task_results import result_digests, write_tables
from loragrid.scoring.vllm_engine.process import engine_versions
from loragrid.scoring.vllm_engine.served_adapters import engine_adapters, planned_adapters
from loragrid.scoring.vllm_engine.vllm_model import VllmModel
from loragrid.study.sections import HELDOUT_LOSS
from loragrid.study.study_file import Study, load_study
from loragrid.study.tasks import scoring_digest

CTRL_C_SECONDS = 3.0
HALF = "16bit"


def score_subjects(*, study: Study, subjects: Sequence[Subject], session_ends: float | None = None) -> None:
    """Score every subject; those of one model share the loaded base.

    `session_ends`: when the session ends, seconds of `time.monotonic()`. Raises `Paused` before a
    task that might not finish in time; finished tasks are kept.
    """
    with working("checking what is scored"):
        groups = group_by_model(study, subjects)
    if not groups:
        return
    if study.scoring.precision == HALF and torch_device() == "cpu" and cpu_has_bf16() is False:
        print_line("this CPU has no instructions for bfloat16: scoring in 16bit is slower than in 32bit")
    clock = SessionClock(session_ends)
    prompts: list[Prompt] = []
    if study.scoring.qualitative:
        prompts = read_prompts(Path(study.scoring.qualitative))
    with working("reading the tasks"):
        tasks = study_tasks(study)
    for members in groups:
        with closing(model_of(study, [identity for _, identity in members])) as model:
            for subject, identity in members:
                model.attach_adapter(adapter_of(identity))
                score_subject(study, ScoringJob(subject, identity, model, clock), tasks=tasks, prompts=prompts)


def study_tasks(study: Study) -> dict[str, StudyTask]:
    """The study's tasks of lm-eval, as `find_tasks`; a resident worker builds them once for all subjects."""
    names, limit = [name for name in study.scoring.tasks if name != HELDOUT_LOSS], study.scoring.limit
    return kept("tasks", key=lambda: (names, scoring_digest(study)), make=lambda: find_tasks(names, limit=limit))


def group_by_model(study: Study, subjects: Sequence[Subject]) -> list[list[tuple[Subject, SubjectIdentity]]]:
    """The subjects and their identities, all checked, in groups that share a loaded model.

    A subject that cannot be scored gets its record here.
    """
    groups: dict[tuple, list[tuple[Subject, SubjectIdentity]]] = {}
    for subject in subjects:
        identity = identify(study, subject)
        if identity.reason is not None:
            write_not_scored(study, subject, identity)
        else:
            key = identity.model, identity.entry.precision, identity.entry.revision, whole_model(identity)
            groups.setdefault(key, []).append((subject, identity))
    return list(groups.values())


def model_of(study: Study, members: Sequence[SubjectIdentity]) -> LoadedModel | VllmModel:
    """The model that a group shares, loaded on first use; raises `UserError` for one that vLLM cannot serve."""
    first = members[0]
    options = {"scoring": study.scoring, "weights": whole_model(first)}
    if study.scoring.engine == "hf":
        return LoadedModel(first.model, first.entry, **options)
    served = engine_adapters([adapter for identity in members if (adapter := adapter_of(identity))])
    if whole_model(first) is None:
        served = served.joined(planned_adapters(study, first.entry, first.model))
    return VllmModel(first.model, first.entry, served=served, **options)


def adapter_of(identity: SubjectIdentity) -> Path | None:
    """The folder of the adapter; None for a base or a whole model."""
    return None if whole_model(identity) else identity.weights


def whole_model(identity: SubjectIdentity) -> Path | None:
    """The folder of the weights that take the place of the base's; None for a base or an adapter."""
    weights = identity.weights
    return weights if weights is not None and weights.name == MODEL and identity.kind == "run" else None


def score_subject(study: Study, job: ScoringJob, *, tasks: dict[str, StudyTask], prompts: Sequence[Prompt]) -> None:
    """Score one subject on all tasks of the study, reusing finished ones, and write its results."""
    started = time.monotonic()
    scores, tables, lm_eval_results = {}, [], {}
    for group, names in (("target", study.scoring.target), ("retention", study.scoring.retention)):
        for name in names:
            task = tasks.get(name)  # None for the held-out loss
            own_name = task.name if task else HELDOUT_LOSS
            done = score_task(job, own_name, task, group=group)
            score = TaskScore(**done["score"] | {"notes": tuple(done["score"]["notes"])})
            scores[own_name], lm_eval_results[own_name] = score, done["lm_eval"]
            if done["items"] is not None:
                tables.append(done["items"])
            print_score(job.subject, own_name, score)
    write_tables(job.subject.out, tables, lm_eval_results)
    write_answers(job, prompts)
    record = ScoreRecord(
        **record_header(study, job.subject, job.identity),
        status="scored",
        reason=None,
        chat_template_sha256=job.model.template.sha256,
        tasks=scores,
        seconds=round(time.monotonic() - started, 3),
        base_commit=job.model.entry.revision,
        notes=(*job.identity.notes, *precision_notes(job.model.entry, device=torch_device())),
    )
    # Written last: score.json is the rule's output, so all other files are complete when it exists.
    write_sealed_record(job.subject.out / "score.json", record, result_digests(job.subject.out))


def write_not_scored(study: Study, subject: Subject, identity: SubjectIdentity) -> None:
    """Write the record of a subject that cannot be scored; the job then ends as a success."""
    record = ScoreRecord(
        **record_header(study, subject, identity),
        status="not_scored",
        reason=identity.reason,
        chat_template_sha256=None,
        tasks={},
        seconds=0.0,
    )
    write_sealed_record(subject.out / "score.json", record, {})
    print_result(f"[{subject.name}] not scored: {identity.reason}")


def record_header(study: Study, subject: Subject, identity: SubjectIdentity) -> dict[str, Any]:
    """The fields that every score record has, scored or not."""
    return {
        "study": study.name,
        "subject": subject.name,
        "kind": identity.kind,
        "model": identity.model,
        "base": identity.base,
        "weights_sha256": identity.weights_sha256,
        "share": identity.share,
        "source": identity.source,
        "source_commit": identity.commit,
        "precision": identity.entry.precision,
        "engine": study.scoring.engine,
        "versions": versions() | engine_of_its_own(study),
        "git": git_state(),
        "device": device_info(),
        "code": code_digest("score"),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def engine_of_its_own(study: Study) -> dict[str, str]:
    """The version of an engine that is not among this environment's packages."""
    return {} if study.scoring.engine == "hf" else {"vllm": engine_versions()["vllm"]}


def print_score(subject: Subject, name: str, score: TaskScore) -> None:
    """Print one line per task, with the subject's name: several jobs may share a terminal."""
    if score.status == "failed":
        line = f"failed: {score.reason}"
    else:
        value = score.metrics[score.primary_metric]["value"]
        line = f"{score.primary_metric} {value:.4g} ({score.items} items, {score.seconds:.1f} s)"
    print_result(f"[{subject.name}] {name}: {line}")


def set_up_process(threads: int) -> None:
    """Set threads and GPU and quiet the libraries; to be called before torch is imported."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    quiet_libraries()
    take_one_gpu()
    set_up_torch(threads)


def main() -> None:
    """Map the command line to `score_subjects`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__), parents=[log_option()])
    parser.add_argument("--study", required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--subject", help="id of a run, RUN@SHARE, a base or an adopted adapter")
    what.add_argument("--list", type=Path, help="file of JSON lines: subject, data, out and, for a run, trained")
    parser.add_argument("--trained", help="folder of the run's record and weights")
    for name in ("data", "out"):
        parser.add_argument(f"--{name}")
    add_session_options(parser)
    add_backup_option(parser)
    options = parser.parse_args()
    if options.subject and not (options.data and options.out):
        parser.error("--subject needs --data and --out")
    study = load_study(options.study).with_backup(options.backup)
    if options.list:
        subjects = read_subjects(options.list)
    else:
        subjects = [make_subject(options.subject, options.trained, options.data, options.out)]
    # Finished tasks and answers are kept.
    with ctrl_c_ends_within(CTRL_C_SECONDS):
        set_up_process(study.scoring.threads)
        ends = session_end(options, session_minutes=study.training.session_minutes)
        score_subjects(study=study, subjects=subjects, session_ends=ends)
        for subject in subjects:
            copy_result(study, "score", subject.name, subject.out)


if __name__ == "__main__":
    run_main(main)
