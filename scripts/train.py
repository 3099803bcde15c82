"""Train one run of the grid: a LoRA adapter, its losses, its history and its record.

    train.py --study FILE --run RUN --data FOLDER --out FOLDER [--session-minutes M]

Leaves in the output folder: adapter/ (PEFT form), losses.csv, history.jsonl and, last, record.json. Until then also
checkpoints/, from which the same command goes on after a kill, and trainer.lock; they are only for going on, so a
finished run has no checkpoints. A run that stopped without a record says why in failure.json.
"""

import argparse
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import checkpoint, history, provenance
from study.adapter import save_adapter
from study.backends import Backend, Trainer, choose_backend, make_recipe
from study.base_facts import BaseFacts
from study.budget import plan_steps
from study.course import Course, Diverged, StoppedBeforeUpdate
from study.durable import sha256_json
from study.energy import EnergyMeter
from study.errors import Paused, UserError, run_main, tell
from study.failures import failures_told
from study.fingerprint import fingerprint
from study.grid import Cell, find_cell
from study.losses import LossTable, last_position
from study.models import choose_device, prepared_entry
from study.records import RunRecord, read_record, write_record
from study.run_lock import RunLock
from study.run_record import make_record
from study.session import SessionClock, StopSignals
from study.study_file import Study, load_study
from study.training_data import TrainingData, load_training_data
from study.warm import hand_over


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one session of a run works with."""

    backend: Backend
    trainer: Trainer
    course: Course
    store: checkpoint.CheckpointStore
    data: TrainingData
    base: BaseFacts


def train_run(
    *, study: Study, cell: Cell, data_folder: Path, out: Path, session_minutes: float | None = None
) -> RunRecord:
    """Train a run to its end, from its newest good checkpoint if there is one, and return its record.

    `session_minutes` replaces the study file's. Raises `Paused` when a signal or the session's limit came first,
    `Failed` when memory or disk ran out, `UserError` for what the user can mend. A run that diverged is a finding: its
    record says so, and it has no adapter.
    """
    if (out / "record.json").exists():
        return _finished_before(out, run=cell.run)
    with (
        failures_told(out, run=cell.run),
        RunLock(out, run=cell.run) as lock,
        StopSignals() as stop,
    ):
        story = _clear_up(out)
        limit = study.settings["training"]["session_minutes"] if session_minutes is None else session_minutes
        work = prepare(
            study=study, cell=cell, data_folder=data_folder, out=out, clock=SessionClock(limit), stop=stop, lock=lock
        )
        diverged = train_session(work, story=story)
        adapter = None if diverged else save_adapter(work.trainer.model, out / "adapter")
        work.course.losses.seal()
        record = make_record(
            study=study,
            cell=cell,
            course=work.course,
            history=story,
            base=work.base,
            backend=work.backend.name,
            notes=work.trainer.notes,
            card=work.data.card,
            parameters=work.trainer.model.get_nb_trainable_parameters(),
            adapter=adapter,
            diverged=diverged,
        )
        write_record(out / "record.json", record)
        work.store.remove_all()
    return record


def prepare(
    *, study: Study, cell: Cell, data_folder: Path, out: Path, clock: SessionClock, stop: StopSignals, lock: RunLock
) -> Work:
    """Load data and base, put adapters on, and find out how many updates the budget buys."""
    training, entry = study.settings["training"], prepared_entry(study.settings["models"][cell.model], data_folder)
    device = choose_device()
    backend = choose_backend(training["backend"], device=device, folder=out)
    recipe = make_recipe(study, cell, device=device)
    _set_threads(recipe.threads)
    data = load_training_data(data_folder)
    base = backend.load(entry, recipe=recipe)
    trainer = backend.trainer(
        backend.adapt(base, recipe=recipe), base=base, recipe=recipe, train=data.train, heldout=data.heldout, folder=out
    )
    steps = plan_steps(
        training["budget"],
        lengths_tokens=trainer.lengths_tokens(),
        per_device=recipe.per_device,
        accumulation=recipe.accumulation,
    )
    store = checkpoint.CheckpointStore(
        out / "checkpoints",
        fingerprint=fingerprint(
            cell=cell, recipe=recipe, backend=backend.name, card=data.card, base=base.facts, steps=steps
        ),
        keep=training["keep_checkpoints"],
        before_save=lock.check,
    )
    course = Course(
        run=cell.run,
        planned_steps=steps,
        losses=LossTable(out / "losses.csv"),
        clock=clock,
        stop=stop,
        **{key: training[key] for key in ("evaluate_every_steps", "save_steps", "save_minutes")},
    )
    return Work(backend=backend, trainer=trainer, course=course, store=store, data=data, base=base.facts)


def train_session(work: Work, *, story: history.History) -> str | None:
    """Train until the end or an early stop, and note the session in the history. Returns how the run diverged, if it did."""
    course = work.course
    found = work.store.newest_good(tell)
    course.begin(found.state if found else None)
    work.trainer.follow(course, work.store)
    course.clock.took(save=_expected_save_seconds(work.trainer.model))
    device = provenance.device_info()
    story.start(
        step=course.seen.step,
        seconds_before=course.seen.seconds,
        device=device["name"],
        fingerprint_sha256=sha256_json(work.store.fingerprint),
    )
    energy, ended, diverged = EnergyMeter(device=device["kind"]), "", None
    try:
        ended = _updates(work, found)
    except Diverged as divergence:
        ended, diverged = "diverged", str(divergence)
        tell(f"[{course.run}] diverged, {diverged}: that is recorded as its result, and no adapter is kept")
    except BaseException as error:
        ended = f"{type(error).__name__}: {error}"
        raise
    finally:
        # A full disk cannot take the line; the next session then notes this one as killed.
        with suppress(OSError):
            facts = {"energy_joules": energy.joules(), "order_sha256": course.seen.order} | _facts_of_process()
            facts |= {"saving_seconds": course.saving_seconds, "evaluating_seconds": course.evaluating_seconds}
            story.end(step=course.seen.step, seconds=course.session_seconds(), ended=ended, **facts)
    if ended not in ("finished", "diverged"):
        at = f"step {course.seen.step} of {course.planned_steps}"
        why = ended.removeprefix("paused: ")
        raise Paused(f"run {course.run} paused at {at} ({why}), run the same command to go on")
    return diverged


def _updates(work: Work, found: checkpoint.Checkpoint | None) -> str:
    """Make the updates that are left. Returns "finished", or why the course stopped early."""
    course = work.course
    if course.must_stop(course.seen.step) and course.stop.requested:
        return course.stop.requested  # asked while the base was loading
    course.stopped = (
        None  # a session makes at least one update, however short its limit, or no number of them would finish
    )
    with suppress(StoppedBeforeUpdate):
        if course.seen.step >= course.planned_steps:
            work.trainer.finish(str(found.path))
        else:
            work.trainer.train(resume_from_checkpoint=str(found.path) if found else None)
    # A trainer told to stop returns from train() as if all were well: only the count says whether it is done.
    if course.seen.step < course.planned_steps and course.stopped is None:
        raise RuntimeError(f"the trainer ended at step {course.seen.step} of {course.planned_steps}")
    return course.stopped or "finished"


def _finished_before(out: Path, *, run: str) -> RunRecord:
    """The record of a run that is done: nothing is trained, and what a kill after the record left is cleared."""
    record = read_record(out / "record.json", RunRecord)
    if record.run != run:
        raise UserError(f"{out / 'record.json'} is of run {record.run}, not {run}: give each run a folder of its own")
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    tell(f"[{run}] {record.status} at step {record.steps} before: nothing to do")
    return record


def _clear_up(out: Path) -> history.History:
    """Remove what an earlier session left unfinished and note it as killed if it could not say why it ended."""
    (out / "failure.json").unlink(missing_ok=True)
    for name in ("adapter", "adapter.partial"):
        shutil.rmtree(out / name, ignore_errors=True)  # without a record it is no final file
    story = history.History(out / "history.jsonl")
    step, seconds = last_position(out / "losses.csv")
    story.close_killed(last_step=step, last_seconds=seconds)
    return story


def _expected_save_seconds(model: Any) -> float:
    """A first guess, until a save is measured: float32 weights and two moments each, to a drive of 50 MB/s."""
    trainable, _ = model.get_nb_trainable_parameters()
    return 0.2 + trainable * 12 / 50e6


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _facts_of_process() -> dict[str, Any]:
    """Peak memory, MiB, and a digest of the random number generators' states."""
    import torch

    from study.backends.followed import random_state_sha256

    vram = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
    return {"peak_vram_mib": vram, "peak_rss_mib": provenance.peak_rss_mib(), "random_sha256": random_state_sha256()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True, help="study file")
    parser.add_argument("--run", required=True, help="run id, as the grid names it")
    parser.add_argument("--data", required=True, type=Path, help="folder that prepare_data left")
    parser.add_argument("--out", required=True, type=Path, help="the run's folder")
    parser.add_argument("--session-minutes", type=float, help="pause in time for a session of that length")
    arguments = parser.parse_args()
    os.environ |= {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    study = load_study(arguments.study)
    train_run(
        study=study,
        cell=find_cell(study, arguments.run),
        data_folder=arguments.data,
        out=arguments.out,
        session_minutes=arguments.session_minutes,
    )


if __name__ == "__main__":
    hand_over()
    run_main(main)
