"""One session of a run: from a loaded base to the last update or an early stop, noted in the run's history."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.data.training_data import TrainingData
from loragrid.errors import Paused, print_line
from loragrid.models.model_files import BaseFacts
from loragrid.records.history import History, least_told
from loragrid.runtime import provenance
from loragrid.runtime.atomic_files import sha256_json
from loragrid.runtime.energy import EnergyMeter
from loragrid.runtime.run_lock import RunLock
from loragrid.runtime.session import SessionClock
from loragrid.training import checkpoints
from loragrid.training.backends.interface import Backend, Trainer
from loragrid.training.progress import Diverged, Progress, StoppedBeforeUpdate


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one session of a run works with."""

    backend: Backend
    trainer: Trainer
    progress: Progress
    store: checkpoints.CheckpointStore
    data: TrainingData
    base: BaseFacts
    lock: RunLock


def pause_if_late(out: Path, *, run: str, clock: SessionClock) -> None:
    """Raise `Paused` if the session is over before loading and one update can be, as far as this run's earlier sessions,
    or else those of the runs beside it, can tell: a session that is cut off in there has done nothing."""

    def told(key: str) -> float:
        own = least_told([out / "history.jsonl"], key)
        return (least_told(out.parent.glob("*/history.jsonl"), key) or 0.0) if own is None else own

    needed = told("loading_seconds") + told("step_seconds")
    if clock.too_late(loading=needed):
        raise Paused(
            f"run {run} paused before it began ({clock.left():.0f} s of the session left, loading and one update take "
            f"{needed:.0f} s or more), run the same command to go on"
        )


def train_session(work: Work, *, story: History) -> str | None:
    """Train until the end or an early stop, and note the session in the history. Returns how the run diverged, if it did."""
    progress = work.progress
    found = work.store.newest_good(print_line)
    progress.begin(found.state if found else None)
    work.trainer.attach_progress(progress, work.store)
    progress.clock.record_duration(save=_expected_save_seconds(work.trainer.model))
    device, loading = provenance.device_info(), {"loading_seconds": round(progress.clock.elapsed(), 3)}
    story.start(
        step=progress.totals.step,
        seconds_before=progress.totals.seconds,
        device=device["name"],
        fingerprint_sha256=sha256_json(work.store.fingerprint),
    )
    energy, ended, diverged = EnergyMeter(device=device["kind"]), "", None
    try:
        ended = _updates(work, found)
    except Diverged as divergence:
        ended, diverged = "diverged", str(divergence)
        print_line(f"[{progress.run}] diverged, {diverged}: that is recorded as its result, and no adapter is kept")
    except BaseException as error:
        ended = f"{type(error).__name__}: {error}"
        raise
    finally:
        # A full disk cannot take the line; the next session then notes this one as killed, as another trainer that took
        # the run over has done already.
        with suppress(OSError):
            facts = {"energy_joules": energy.joules(), "order_sha256": progress.totals.order} | _facts_of_process()
            facts |= {
                "saving_seconds": progress.saving_seconds,
                "evaluating_seconds": progress.evaluating_seconds,
            } | loading
            facts |= {"step_seconds": progress.clock.slowest_step() or None}
            if not work.lock.lost():
                story.end(step=progress.totals.step, seconds=progress.session_seconds(), ended=ended, **facts)
    if ended not in ("finished", "diverged"):
        at = f"step {progress.totals.step} of {progress.planned_steps}"
        why = ended.removeprefix("paused: ")
        raise Paused(f"run {progress.run} paused at {at} ({why}), run the same command to go on")
    return diverged


def _updates(work: Work, found: checkpoints.Checkpoint | None) -> str:
    """Make the updates that are left. Returns "finished", or why the progress stopped early."""
    progress = work.progress
    if progress.must_stop(progress.totals.step) and progress.stop.requested:
        return progress.stop.requested  # asked while the base was loading
    # A job that began within the session makes at least one update, or no number of sessions would finish the run.
    progress.stop_reason = None
    with suppress(StoppedBeforeUpdate):
        if progress.totals.step >= progress.planned_steps:
            work.trainer.finish(str(found.path))
        else:
            work.trainer.train(resume_from_checkpoint=str(found.path) if found else None)
    # A trainer told to stop returns from train() as if all were well: only the count says whether it is done.
    if progress.totals.step < progress.planned_steps and progress.stop_reason is None:
        raise RuntimeError(f"the trainer ended at step {progress.totals.step} of {progress.planned_steps}")
    return progress.stop_reason or "finished"


def _expected_save_seconds(model: Any) -> float:
    """A first guess, until a save is measured: float32 weights and two moments each, to a drive of 50 MB/s."""
    trainable, _ = model.get_nb_trainable_parameters()
    return 0.2 + trainable * 12 / 50e6


def _facts_of_process() -> dict[str, Any]:
    """Peak memory, MiB, and a digest of the random number generators' states."""
    import torch

    from loragrid.training.trainer_hooks import random_state_sha256

    vram = torch.cuda.max_memory_reserved() / 2**20 if torch.cuda.is_available() else None
    return {"peak_vram_mib": vram, "peak_rss_mib": provenance.peak_rss_mib(), "random_sha256": random_state_sha256()}
