"""A run's part in held-out losses that are measured once (scoring/heldout/kept_losses.py)."""

from pathlib import Path

from loragrid.models.adapter_files import trained_sha256
from loragrid.scoring.heldout.kept_losses import OF_RUN, KeptLosses, arithmetic, base_losses, loss_key
from loragrid.study.methods import METHODS
from loragrid.training.run_session import PreparedRun


def share_base_losses(run: PreparedRun) -> None:
    """Let the trainer take its first losses from the base's, or measure them for the other jobs.

    Only where the untrained model computes as the base does, and row by row: unsloth's way does not.
    """
    method = METHODS[run.context.cell.settings.method]
    if method.starts_as_base and run.backend.name == "trl":
        run.trainer.base_losses = base_losses(run.context.out, _key(run, weights=None))


def keep_last_losses(run: PreparedRun, trained: Path) -> None:
    """Keep the losses of the trained weights beside them, if this session has measured them."""
    measured = run.trainer.last_measured
    measured_at = run.progress.losses.last("heldout")
    path = run.context.out / OF_RUN
    if measured is None or measured_at.step < run.progress.planned_steps or run.backend.name != "trl":
        path.unlink(missing_ok=True)  # an earlier training of this run may have left it
        return
    KeptLosses(path, _key(run, weights=trained)).write(measured)


def _key(run: PreparedRun, *, weights: Path | None) -> str:
    context, identity = run.context, run.store.fingerprint
    return loss_key(
        base_sha256=run.base.sha256,
        weights_sha256=None if weights is None else trained_sha256(weights),
        rows=context.data_folder / "heldout.parquet",
        computed=arithmetic(
            precision=context.study.base_entry(context.cell).precision,
            compute_dtype=identity["compute_dtype"],
            device=identity["device"],
        ),
    )
