"""Train one run of the grid: an adapter or a whole model, with its losses, history and record.

    train.py --study FILE --run RUN --data FOLDER --out FOLDER [--session-minutes M] [--backup PLACE]

Writes to the output folder: adapter/ (PEFT format) or, if all weights are trained, model/ (Hugging Face format);
along/SHARE/ with the same for each share of the budget in `scoring.at`; losses.csv; heldout_losses.json (the last
held-out loss row by row, for the score); history.jsonl, finished.json (a copy of the record that Snakemake does not
delete), sealed.json (the digests of these files) and, last, record.json. Until then the folder also has trainer.lock
and checkpoints/, from which the same command resumes after a kill. A run that stopped without a record says why in
failure.json.
"""

from loragrid.runtime.delegation.client import delegate_job

if __name__ == "__main__":
    delegate_job()  # before the imports below, which the process that takes it has made or makes anyway

import argparse
import sys
from pathlib import Path

from loragrid.backup.results import add_backup_option
from loragrid.data.training_data import load_training_data
from loragrid.errors import log_option, print_line, run_main, summary_line
from loragrid.models.adapter_files import save_trained
from loragrid.models.loading import torch_device
from loragrid.models.model_files import prepared_entry
from loragrid.records.failures import record_failures
from loragrid.records.history import History
from loragrid.records.losses import LossTable
from loragrid.records.record import RunRecord, write_sealed_record
from loragrid.runtime.gpu_locks import take_gpus
from loragrid.runtime.progress_lines import working
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.runtime.run_lock import RunLock
from loragrid.runtime.session import SessionClock, StopSignals, add_session_options, session_end
from loragrid.runtime.torch_memory import set_up_torch
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study, load_study
from loragrid.training.backends.factory import choose_backend
from loragrid.training.backends.recipe import make_recipe, recipe_of_rank
from loragrid.training.checkpoint_files import GPUS
from loragrid.training.checkpoints import CheckpointStore
from loragrid.training.fingerprint import fingerprint
from loragrid.training.progress import Progress
from loragrid.training.ranks.launcher import EXIT_RANK_LOST, launch_ranks
from loragrid.training.ranks.processes import ONE_RANK, RankLost, Ranks, is_rank, join_ranks, rank_folder
from loragrid.training.ranks.split_base import needs_split, split_base
from loragrid.training.run_backup import RunBackup
from loragrid.training.run_record import (
    already_finished,
    final_digests,
    make_record,
    remove_unfinished,
    save_finished_copy,
    trained_before,
)
from loragrid.training.run_session import PreparedRun, RunContext, pause_if_late, train_session
from loragrid.training.shared_losses import keep_last_losses, share_base_losses
from loragrid.training.step_layout import planned_steps, with_chosen_layout, with_layout


def train_run(
    *,
    study: Study,
    cell: Cell,
    data_folder: Path,
    out: Path,
    session_ends: float | None = None,
    ranks: Ranks = ONE_RANK,
) -> RunRecord:
    """Train a run to its end, resuming from its newest good checkpoint, and return its record.

    `session_ends`: end of the session, seconds of `time.monotonic()`. `ranks`: the processes that train it together,
    of which this is the first; the others call `follow_run`. A diverged run is a result: its record says so, and it
    has no final weights. Raises `Paused` on a signal or at the session's end, `Failed` if memory or disk runs out,
    `UserError` for what the user can fix.
    """
    context = RunContext(
        study=study,
        cell=cell,
        data_folder=data_folder,
        out=out,
        clock=SessionClock(session_ends),
        stop=StopSignals(),
        ranks=ranks,
    )
    if (out / "record.json").exists():
        return already_finished(context)
    pause_if_late(context)
    with (
        record_failures(out, run=cell.run),
        RunLock(out, run=cell.run, on_loss=context.stop.request) as lock,
        context.stop,
        RunBackup(study, run=cell.run, out=out, clock=context.clock) as backup,
        working(f"[{cell.run}] loading and saving"),
    ):
        # Again, now that the lock is held: its last holder may have finished the run meanwhile.
        if (out / "record.json").exists():
            return already_finished(context)
        return _trained(context, lock, backup)


def _trained(context: RunContext, lock: RunLock, backup: RunBackup) -> RunRecord:
    """Train the run, with its lock held, and write what it leaves."""
    backup.restore()
    run = prepare(context=context, lock=lock, backup=backup)
    share_base_losses(run)
    record = trained_before(run)
    if context.ranks.first(record is None):
        record = _train(run)
    lock.check()
    # Last: Snakemake takes this file as proof that all others are complete.
    write_sealed_record(context.out / "record.json", record, final_digests(context.out))
    backup.copy_finished()
    run.store.remove_all()
    return record


def train_as_rank(*, study: Study, cell: Cell, data_folder: Path, out: Path, session_ends: float | None = None) -> None:
    """Train a run as one of the processes that a launcher started for it."""
    try:
        ranks = join_ranks()
        if ranks.rank == 0:
            train_run(study=study, cell=cell, data_folder=data_folder, out=out, session_ends=session_ends, ranks=ranks)
        else:
            follow_run(study=study, cell=cell, data_folder=data_folder, out=rank_folder(ranks.rank), ranks=ranks)
    except RankLost:
        # The rank that ended first says why.
        raise SystemExit(EXIT_RANK_LOST) from None


def follow_run(*, study: Study, cell: Cell, data_folder: Path, out: Path, ranks: Ranks) -> None:
    """Train a run as one of its processes after the first, which writes all files; `out` is a folder of its own."""
    context = RunContext(study=study, cell=cell, data_folder=data_folder, out=out, ranks=ranks)
    with record_failures(out, run=cell.run), RunLock(out, run=cell.run) as lock, context.stop:
        run = prepare(context=context, lock=lock)
        if ranks.first(None):
            train_session(run, history=History(out / "history.jsonl"))


def _train(run: PreparedRun) -> RunRecord:
    """Train to the end and leave every final file except record.json."""
    out = run.context.out
    history = remove_unfinished(out)
    diverged = train_session(run, history=history)
    run.lock.check()
    trained = None
    if diverged is None:
        trained = save_trained(run.trainer.model, out, tokenizer=run.tokenizer)
        keep_last_losses(run, trained)
    run.progress.losses.sync()
    record = make_record(run, history=history, trained=trained, diverged=diverged)
    save_finished_copy(out, record, fingerprint=run.store.fingerprint)
    return record


def prepare(*, context: RunContext, lock: RunLock, backup: RunBackup | None = None) -> PreparedRun:
    """Load data and base, attach the adapter, and plan the updates; changes nothing in the folder."""
    study, cell, out = context.study, context.cell, context.out
    settings, device, ranks = cell.settings, torch_device(), context.ranks
    backend = choose_backend(settings.backend, device=device, method=settings.method, gpus=ranks.count)
    split = needs_split(study, cell, device=device, ranks=ranks)
    recipe = make_recipe(study, cell, device=device)
    recipe = recipe_of_rank(recipe, rank=ranks.rank, count=ranks.count, split=split)
    set_up_torch(recipe.threads)
    data = load_training_data(context.data_folder)
    entry = prepared_entry(study.base_entry(cell), context.data_folder)
    if ranks.count == 1:
        recipe = with_chosen_layout(recipe, context=context, backend=backend.name, entry=entry, data=data)
    base = backend.load(entry, recipe=recipe)
    model = backend.adapt(base, recipe=recipe)
    if split:
        print_line(f"[{cell.run}] one GPU does not hold the base: it is split over {ranks.count}")
        split_base(model, device=device, ranks=ranks)
    trainer = backend.trainer(model, base=base, recipe=recipe, data=data, folder=out)
    trainer.ranks = ranks
    recipe = with_layout(recipe, trainer.layout)
    steps = planned_steps(cell, recipe, trainer.lengths_tokens())
    identity = fingerprint(cell=cell, recipe=recipe, backend=backend.name, card=data.card, base=base.facts, steps=steps)
    return PreparedRun(
        context=context,
        backend=backend,
        trainer=trainer,
        progress=_progress(context, planned_steps=steps),
        # A trainer that lost the lock must not write beside the one that took over.
        store=CheckpointStore(
            out / "checkpoints",
            # Gradients of several processes are added in another order than those of one.
            fingerprint=identity | {GPUS: ranks.count},
            keep=study.training.keep_checkpoints,
            before_save=lock.check,
            backup=backup,
        ),
        data=data,
        base=base.facts,
        tokenizer=base.tokenizer,
        lock=lock,
    )


def _progress(context: RunContext, *, planned_steps: int) -> Progress:
    return Progress(
        run=context.cell.run,
        planned_steps=planned_steps,
        evaluations=context.cell.settings.evaluations,
        # The end is saved by itself.
        keep_at=tuple(share for share in context.study.scoring.at if share < 1),
        save_steps=context.study.training.save_steps,
        save_minutes=context.study.training.save_minutes,
        losses=LossTable(context.out / "losses.csv"),
        clock=context.clock,
        stop=context.stop,
    )


def main() -> None:
    """Map the command line to `train_run`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__), parents=[log_option()])
    parser.add_argument("--study", required=True, help="study file")
    parser.add_argument("--run", required=True, help="run id, as the grid names it")
    parser.add_argument("--data", required=True, type=Path, help="folder that prepare_data left")
    parser.add_argument("--out", required=True, type=Path, help="the run's folder")
    add_session_options(parser)
    add_backup_option(parser)
    arguments = parser.parse_args()
    quiet_libraries()
    study = load_study(arguments.study).with_backup(arguments.backup)
    cell, gpus = study.cell(arguments.run), study.training.gpus
    ends = session_end(arguments, session_minutes=study.training.session_minutes)
    what = {"study": study, "cell": cell, "data_folder": arguments.data, "out": arguments.out, "session_ends": ends}
    if is_rank():
        train_as_rank(**what)
        return
    take_gpus(gpus)
    if gpus == 1 or (arguments.out / "record.json").exists():
        train_run(**what)
        return
    command = [sys.executable, __file__, "--study", arguments.study, "--run", cell.run, "--data", str(arguments.data)]
    command += ["--out", str(arguments.out), "--backup", arguments.backup or ""]
    if ends is not None:
        command += ["--session-ends", str(ends)]
    launch_ranks(command, run=cell.run, count=gpus, out=arguments.out)


if __name__ == "__main__":
    run_main(main)
