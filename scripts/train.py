"""Train one run of the grid: a LoRA adapter, its losses, its history and its record.

    train.py --study FILE --run RUN --data FOLDER --out FOLDER [--session-minutes M]

Leaves in the output folder: adapter/ (PEFT form), losses.csv, history.jsonl, finished.json (a copy of the record that
Snakemake does not delete) and, last, record.json. Until then also checkpoints/, from which the same command goes on after
a kill, and trainer.lock; they are only for going on, so a finished run has no checkpoints. A run that stopped without a
record says why in failure.json.
"""

import argparse
import shutil
from pathlib import Path

from loragrid.data.training_data import load_training_data
from loragrid.errors import UserError, print_line, run_main
from loragrid.models.adapter_files import save_adapter
from loragrid.models.loading import torch_device
from loragrid.models.model_files import prepared_entry
from loragrid.records import finished_record
from loragrid.records.failures import failures_told
from loragrid.records.history import History
from loragrid.records.losses import LossTable, last_position
from loragrid.records.record import RunRecord, read_record, write_record
from loragrid.runtime.fork_server import delegate_to_fork_server
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.runtime.run_lock import RunLock
from loragrid.runtime.session import SessionClock, StopSignals, add_session_options, session_end
from loragrid.study.budget import plan_steps
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study, load_study
from loragrid.training import checkpoints
from loragrid.training.backends.factory import choose_backend
from loragrid.training.backends.recipe import make_recipe
from loragrid.training.fingerprint import fingerprint
from loragrid.training.progress import Progress
from loragrid.training.run_record import make_record
from loragrid.training.run_session import Work, pause_if_late, train_session


def train_run(
    *, study: Study, cell: Cell, data_folder: Path, out: Path, session_ends: float | None = None
) -> RunRecord:
    """Train a run to its end, from its newest good checkpoint if there is one, and return its record.

    `session_ends`: when the session ends, seconds of `time.monotonic()`. Raises `Paused` when a signal or that moment
    came first, `Failed` when memory or disk ran out, `UserError` for what the user can mend. A run that diverged is a
    finding: its record says so, and it has no adapter.
    """
    if (out / "record.json").exists():
        return _finished_before(out, run=cell.run)
    clock, stop = SessionClock(session_ends), StopSignals()
    pause_if_late(out, run=cell.run, clock=clock)
    with (
        failures_told(out, run=cell.run),
        RunLock(out, run=cell.run, on_loss=stop.request) as lock,
        stop,
    ):
        if (out / "record.json").exists():  # written by the trainer that held the lock until now
            return _finished_before(out, run=cell.run)
        work = prepare(study=study, cell=cell, data_folder=data_folder, out=out, clock=clock, stop=stop, lock=lock)
        record = finished_record.kept_record(out, fingerprint=work.store.fingerprint)
        if record is not None:
            print_line(
                f"[{cell.run}] {record.status} before, and nothing that decides it has changed: its record is written again "
                f"(delete {out} to train it anew)"
            )
        else:
            record = _train(work, study=study, cell=cell, out=out)
        lock.check()
        write_record(out / "record.json", record)
        work.store.remove_all()
    return record


def _train(work: Work, *, study: Study, cell: Cell, out: Path) -> RunRecord:
    """Train to the end, and leave every final file but the record that Snakemake waits for."""
    story = _clear_up(out)
    diverged = train_session(work, story=story)
    work.lock.check()
    adapter = None if diverged else save_adapter(work.trainer.model, out / "adapter")
    work.progress.losses.seal()
    record = make_record(
        study=study,
        cell=cell,
        progress=work.progress,
        history=story,
        base=work.base,
        backend=work.backend.name,
        notes=work.trainer.notes,
        card=work.data.card,
        parameters=work.trainer.model.get_nb_trainable_parameters(),
        adapter=adapter,
        diverged=diverged,
    )
    finished_record.keep_record(out, record, fingerprint=work.store.fingerprint)
    return record


def prepare(
    *, study: Study, cell: Cell, data_folder: Path, out: Path, clock: SessionClock, stop: StopSignals, lock: RunLock
) -> Work:
    """Load data and base, put adapters on, and find out how many updates the budget buys. Changes nothing in `out`."""
    training, entry = study.training, prepared_entry(study.models[cell.model], data_folder)
    device = torch_device()
    backend = choose_backend(training.backend, device=device, folder=out)
    recipe = make_recipe(study, cell, device=device)
    _set_threads(recipe.threads)
    data = load_training_data(data_folder)
    base = backend.load(entry, recipe=recipe)
    trainer = backend.trainer(
        backend.adapt(base, recipe=recipe), base=base, recipe=recipe, train=data.train, heldout=data.heldout, folder=out
    )
    steps = plan_steps(
        training.budget,
        lengths_tokens=trainer.lengths_tokens(),
        per_device=recipe.per_device,
        accumulation=recipe.accumulation,
    )
    store = checkpoints.CheckpointStore(
        out / "checkpoints",
        fingerprint=fingerprint(
            cell=cell, recipe=recipe, backend=backend.name, card=data.card, base=base.facts, steps=steps
        ),
        keep=training.keep_checkpoints,
        before_save=lock.check,
    )
    progress = Progress(
        run=cell.run,
        planned_steps=steps,
        losses=LossTable(out / "losses.csv"),
        clock=clock,
        stop=stop,
        evaluate_every_steps=training.evaluate_every_steps,
        save_steps=training.save_steps,
        save_minutes=training.save_minutes,
    )
    return Work(backend=backend, trainer=trainer, progress=progress, store=store, data=data, base=base.facts, lock=lock)


def _finished_before(out: Path, *, run: str) -> RunRecord:
    """The record of a run that is done: nothing is trained, and what a kill after the record left is cleared."""
    record = read_record(out / "record.json", RunRecord)
    if record.run != run:
        raise UserError(f"{out / 'record.json'} is of run {record.run}, not {run}: give each run a folder of its own")
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    print_line(f"[{run}] {record.status} at step {record.steps} before: nothing to do")
    return record


def _clear_up(out: Path) -> History:
    """Remove what an earlier session left unfinished and note it as killed if it could not say why it ended."""
    for name in ("failure.json", finished_record.NAME):
        (out / name).unlink(missing_ok=True)
    for name in ("adapter", "adapter.partial"):
        shutil.rmtree(out / name, ignore_errors=True)  # without a record it is no final file
    story = History(out / "history.jsonl")
    step, seconds = last_position(out / "losses.csv")
    story.close_killed(last_step=step, last_seconds=seconds)
    return story


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True, help="study file")
    parser.add_argument("--run", required=True, help="run id, as the grid names it")
    parser.add_argument("--data", required=True, type=Path, help="folder that prepare_data left")
    parser.add_argument("--out", required=True, type=Path, help="the run's folder")
    add_session_options(parser)
    arguments = parser.parse_args()
    quiet_libraries()
    study = load_study(arguments.study)
    train_run(
        study=study,
        cell=study.cell(arguments.run),
        data_folder=arguments.data,
        out=arguments.out,
        session_ends=session_end(arguments, session_minutes=study.training.session_minutes),
    )


if __name__ == "__main__":
    delegate_to_fork_server()
    run_main(main)
