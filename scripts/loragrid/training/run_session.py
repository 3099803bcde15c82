"""One session of a run: from a loaded base to the last update or an early stop."""

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loragrid.data.training_data import TrainingData
from loragrid.errors import Paused, print_line
from loragrid.models.adapter_files import ALONG
from loragrid.models.model_files import BaseFacts
from loragrid.records.history import History, minimum_logged
from loragrid.runtime import provenance
from loragrid.runtime.atomic_files import sha256_json
from loragrid.runtime.energy import EnergyMeter
from loragrid.runtime.progress_lines import RepeatedLines
from loragrid.runtime.run_lock import RunLock
from loragrid.runtime.session import SessionClock, StopSignals
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study
from loragrid.training.backends.adapters import parameter_counts
from loragrid.training.backends.interface import Backend, Trainer
from loragrid.training.checkpoint_files import Checkpoint
from loragrid.training.checkpoints import CheckpointStore
from loragrid.training.progress import REPORT_SECONDS, Diverged, Progress, StoppedBeforeUpdate
from loragrid.training.random_states import random_state_sha256
from loragrid.training.ranks.processes import ONE_RANK, Ranks

# Weights and two moments of the optimizer, 4 bytes each.
CHECKPOINT_BYTES_PER_PARAMETER = 12
# A slow network drive: too long an estimate costs an update, too short a one costs the session.
DRIVE_BYTES_PER_SECOND = 50e6


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What to train (a cell of a study, on prepared data), in which folder, until when, and by which processes."""

    study: Study
    cell: Cell
    data_folder: Path
    out: Path
    clock: SessionClock = field(default_factory=lambda: SessionClock(None))
    stop: StopSignals = field(default_factory=StopSignals)
    ranks: Ranks = ONE_RANK


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run with everything loaded; its trainer has not started."""

    context: RunContext
    backend: Backend
    trainer: Trainer
    progress: Progress
    store: CheckpointStore
    data: TrainingData
    base: BaseFacts
    tokenizer: Any
    lock: RunLock


def pause_if_late(context: RunContext) -> None:
    """Raise `Paused` if loading the base and one update would outlast the session.

    A session that is cut off before its first update has done nothing. The times are the shortest
    of this run's earlier sessions or, for a run without any, of the other runs of the study.
    """
    out, clock = context.out, context.clock
    needed = _shortest(out, "loading_seconds") + _shortest(out, "step_seconds")
    if clock.too_late(loading=needed):
        raise Paused(
            f"run {context.cell.run} paused before it began ({clock.left():.0f} s of the session "
            f"left; loading and one update take at least {needed:.0f} s), "
            "run the same command to go on"
        )


def _shortest(out: Path, key: str) -> float:
    own = minimum_logged([out / "history.jsonl"], key)
    if own is not None:
        return own
    return minimum_logged(out.parent.glob("*/history.jsonl"), key) or 0.0


def train_session(run: PreparedRun, *, history: History) -> str | None:
    """Train to the last update and log the session; returns how the run diverged, or None.

    Raises `Paused` after an early stop. Whatever ends the session is in the history afterwards,
    except a kill, which the next session logs.
    """
    progress = run.progress
    # Rank 0's: the folder of another rank has none.
    checkpoint = run.context.ranks.first(run.store.newest_good(print_line))
    if checkpoint is None:
        # Weights that an earlier start of this run kept may come from other code or data.
        shutil.rmtree(run.context.out / ALONG, ignore_errors=True)
    progress.begin(checkpoint.state if checkpoint else None)
    run.trainer.attach_progress(progress, run.store)
    # A first estimate, so that a session limit leaves time for a save before one was measured.
    progress.clock.record_duration(save=_expected_save_seconds(run.trainer.model))
    device = provenance.device_info()
    loading_seconds = round(progress.clock.elapsed(), 3)
    history.start(
        step=progress.totals.step,
        seconds_before=progress.totals.seconds,
        device=device["name"],
        fingerprint_sha256=sha256_json(run.store.fingerprint),
    )
    energy, ended, diverged = EnergyMeter(device=device["kind"]), "", None
    together = run.context.ranks
    try:
        ended = _run_updates(run, checkpoint)
    except Diverged as divergence:
        ended, diverged = "diverged", str(divergence)
        line = f"{diverged}. The record says so, and no final weights are kept."
        print_line(f"[{progress.run}] diverged: {line}")
    except BaseException as error:
        ended = f"{type(error).__name__}: {error}"
        # The other ranks may not get here.
        together = ONE_RANK
        raise
    finally:
        # A full disk cannot take the line; the next session then logs this one as killed.
        with suppress(OSError):
            usage = _usage(energy, together)
            _log_end(run, history, ended=ended, usage=usage, loading_seconds=loading_seconds)
    if ended not in ("finished", "diverged"):
        raise Paused(
            f"run {progress.run} paused at step {progress.totals.step} of "
            f"{progress.planned_steps} ({ended.removeprefix('paused: ')}), "
            "run the same command to go on"
        )
    return diverged


def _log_end(
    run: PreparedRun,
    history: History,
    *,
    ended: str,
    usage: dict[str, Any],
    loading_seconds: float,
) -> None:
    """Log the end of the session with its `_usage` and seconds."""
    # The trainer that took the run over has logged this session as killed already.
    if run.lock.lost():
        return
    progress = run.progress
    history.end(
        step=progress.totals.step,
        seconds=progress.session_seconds(),
        ended=ended,
        # With this and the digest of the random states, runs that should be equal are compared batch by batch
        # and draw by draw.
        order_sha256=progress.totals.order,
        **usage,
        saving_seconds=progress.saving_seconds,
        evaluating_seconds=progress.evaluating_seconds,
        loading_seconds=loading_seconds,
        step_seconds=progress.clock.slowest_step() or None,
    )


def _usage(energy: EnergyMeter, ranks: Ranks) -> dict[str, Any]:
    """Joules and peak memory (MiB) of the session, and a digest of its random states, of all `ranks` together.

    GPU memory is that of the fullest card, the machine's memory that of all processes.
    """
    own = energy.joules(), _peak_vram_mib(), provenance.peak_rss_mib(), random_state_sha256()
    joules, vram_mib, rss_mib, digests = zip(*ranks.exchange(own), strict=True)
    return {
        "energy_joules": None if None in joules else sum(joules),
        "peak_vram_mib": None if None in vram_mib else max(vram_mib),
        "peak_rss_mib": sum(rss_mib),
        "random_sha256": digests[0] if len(digests) == 1 else sha256_json(digests),
    }


def _run_updates(run: PreparedRun, checkpoint: Checkpoint | None) -> str:
    """Make the remaining updates; returns "finished" or the reason for an early stop."""
    progress = run.progress
    if progress.must_stop(progress.totals.step) and progress.stop.requested:
        # A signal came while the base was loading.
        return progress.stop.requested
    # A time limit is ignored until one update is made: otherwise no number of sessions would finish
    # a run whose base takes long to load.
    progress.stop_reason = None
    # An update may take minutes, and Progress reports after updates.
    with suppress(StoppedBeforeUpdate), RepeatedLines(progress.report, seconds=REPORT_SECONDS / 2):
        if progress.totals.step >= progress.planned_steps:
            run.trainer.finish(str(checkpoint.path))
        else:
            run.trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    # transformers returns from train() normally after a stop: only the count shows if it finished.
    if progress.totals.step < progress.planned_steps and progress.stop_reason is None:
        at = f"step {progress.totals.step} of {progress.planned_steps}"
        raise RuntimeError(f"the trainer ended at {at}")
    return progress.stop_reason or "finished"


def _expected_save_seconds(model: Any) -> float:
    trainable, _ = parameter_counts(model)
    return 0.2 + trainable * CHECKPOINT_BYTES_PER_PARAMETER / DRIVE_BYTES_PER_SECOND


def _peak_vram_mib() -> float | None:
    import torch

    if not torch.cuda.is_available():
        return None
    # Reserved and not allocated: that is what another job on the card could not have.
    return torch.cuda.max_memory_reserved() / 2**20
