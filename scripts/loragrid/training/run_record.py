"""The record of a finished or diverged run."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.records.history import History
from loragrid.records.losses import LossRow
from loragrid.records.record import RunRecord
from loragrid.runtime.atomic_files import sha256_file
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import device_info, git_state, versions
from loragrid.training.progress import Progress
from loragrid.training.run_session import PreparedRun


def make_record(
    run: PreparedRun,
    *,
    history: History,
    adapter: Path | None,
    diverged: str | None,
) -> RunRecord:
    """The run's record; for a diverged run `diverged` says how, and its `adapter` is None."""
    cell, card = run.context.cell, run.data.card
    trainable, total = run.trainer.model.get_nb_trainable_parameters()
    return RunRecord(
        study=run.context.study.name,
        run=cell.run,
        model=cell.model,
        settings=cell.identity,
        status="diverged" if diverged else "finished",
        reason=diverged,
        backend=run.backend.name,
        data_id=cell.data,
        data_fingerprint=card["fingerprint"],
        train_rows=card["split"]["train_rows"],
        heldout_rows=card["split"]["heldout_rows"],
        base_source=run.base.source,
        base_commit=run.base.commit,
        base_sha256=run.base.sha256,
        **_training_facts(run.progress, diverged=bool(diverged)),
        **_costs(run.progress, history),
        trainable_parameters=trainable,
        total_parameters=total,
        versions=versions(),
        git=git_state(),
        device=device_info(),
        code=code_digest("train"),
        adapter_sha256=sha256_file(adapter / "adapter_model.safetensors") if adapter else None,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=run.trainer.notes,
    )


def _training_facts(progress: Progress, *, diverged: bool) -> dict[str, Any]:
    """Updates, samples and tokens of the run, and its losses."""
    totals, losses = progress.totals, progress.losses
    # The last losses of a diverged run are from before it diverged: they are not its final ones.
    final_train = None if diverged else losses.last("train")
    final_heldout = None if diverged else losses.last("heldout")
    return {
        "losses_file": losses.path.name,
        "steps": totals.step,
        "planned_steps": progress.planned_steps,
        "samples": totals.samples,
        "tokens": totals.tokens,
        "loss_tokens": totals.loss_tokens,
        "padding_share": 1 - totals.tokens / totals.positions if totals.positions else 0.0,
        "final_train_loss": _finite_loss(final_train),
        "first_heldout_loss": _finite_loss(losses.first("heldout")),
        "final_heldout_loss": _finite_loss(final_heldout),
    }


def _costs(progress: Progress, history: History) -> dict[str, Any]:
    """Seconds, peak memory and energy over all sessions."""
    sessions, seconds = history.sessions(), progress.seconds()
    return {
        "sessions": sessions,
        # What was spent, repeated updates included; the pace below counts every update once.
        "train_seconds": sum(session.seconds for session in sessions),
        "tokens_per_second": progress.totals.tokens / seconds if seconds else 0.0,
        "peak_vram_mib": _largest(history.session_values("peak_vram_mib")),
        "peak_rss_mib": _largest(history.session_values("peak_rss_mib")) or 0.0,
        "energy_joules": _total(history.session_values("energy_joules")),
    }


def _finite_loss(row: LossRow | None) -> float | None:
    # JSON has no NaN: a loss that is not finite is in losses.csv only.
    if row is None or not math.isfinite(row.loss):
        return None
    return row.loss


def _largest(values: list[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _total(values: list[float | None]) -> float | None:
    # A killed session, or a device without a counter, leaves no value: then the sum is unknown.
    if not values or None in values:
        return None
    return sum(values)
