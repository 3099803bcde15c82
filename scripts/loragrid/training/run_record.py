"""From a finished or diverged run's progress to its record."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.models.model_files import BaseFacts
from loragrid.records.history import History
from loragrid.records.record import RunRecord
from loragrid.runtime.atomic_files import sha256_file
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import device_info, git_state, versions
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study
from loragrid.training.progress import Progress


def make_record(
    *,
    study: Study,
    cell: Cell,
    progress: Progress,
    history: History,
    base: BaseFacts,
    backend: str,
    notes: tuple[str, ...],
    card: dict[str, Any],
    parameters: tuple[int, int],
    adapter: Path | None,
    diverged: str | None,
) -> RunRecord:
    """The run's record. `parameters` are trainable and all; `adapter` is None and `diverged` says how for a diverged run."""
    return RunRecord(
        study=study.name,
        run=cell.run,
        model=cell.model,
        settings=cell.identity,
        status="diverged" if diverged else "finished",
        reason=diverged,
        backend=backend,
        data_id=cell.data,
        data_fingerprint=card["fingerprint"],
        train_rows=card["split"]["train_rows"],
        heldout_rows=card["split"]["heldout_rows"],
        base_source=base.source,
        base_commit=base.commit,
        base_sha256=base.sha256,
        **_way(progress, diverged=bool(diverged)),
        **_cost(progress, history),
        trainable_parameters=parameters[0],
        total_parameters=parameters[1],
        versions=versions(),
        git=git_state(),
        device=device_info(),
        code=code_digest("train"),
        adapter_sha256=sha256_file(adapter / "adapter_model.safetensors") if adapter else None,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=notes,
    )


def _way(progress: Progress, *, diverged: bool) -> dict[str, Any]:
    """How far the run came, what it saw on the way, and its losses. One that diverged has no final loss: the last that its
    file holds are from before it did."""
    seen, losses = progress.totals, progress.losses
    return {
        "losses_file": losses.path.name,
        "steps": seen.step,
        "planned_steps": progress.planned_steps,
        "samples": seen.samples,
        "tokens": seen.tokens,
        "loss_tokens": seen.loss_tokens,
        "padding_share": 1 - seen.tokens / seen.positions if seen.positions else 0.0,
        "final_train_loss": None if diverged else _loss(losses.last("train")),
        "first_heldout_loss": _loss(losses.first("heldout")),
        "final_heldout_loss": None if diverged else _loss(losses.last("heldout")),
    }


def _cost(progress: Progress, history: History) -> dict[str, Any]:
    """What its sessions took in all: seconds, the largest memory, energy."""
    sessions, seconds = history.sessions(), progress.seconds()
    return {
        "sessions": sessions,
        "train_seconds": sum(session.seconds for session in sessions),
        "tokens_per_second": progress.totals.tokens / seconds if seconds else 0.0,
        "peak_vram_mib": _largest(history.told("peak_vram_mib")),
        "peak_rss_mib": _largest(history.told("peak_rss_mib")) or 0.0,
        "energy_joules": _total(history.told("energy_joules")),
    }


def _loss(row: Any) -> float | None:
    """A loss that is no number is in losses.csv as nan; in a record it is absent, as JSON has no nan."""
    return row.loss if row is not None and math.isfinite(row.loss) else None


def _largest(values: list[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _total(values: list[float | None]) -> float | None:
    """The sum, or None when any session (a killed one, a device that does not tell) left no figure."""
    return sum(values) if values and None not in values else None
