"""The record of a finished or diverged run, and the copy of it that Snakemake does not delete."""

import dataclasses
import math
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, print_line
from loragrid.models.adapter_card import CARD
from loragrid.models.adapter_files import ADAPTER, ALONG, MODEL, along_folder, trained_sha256
from loragrid.records.history import History
from loragrid.records.losses import LossRow, last_position
from loragrid.records.record import RunRecord, as_record, read_record
from loragrid.records.seal import break_seal, digests_of
from loragrid.runtime.atomic_files import read_json, sha256_json, write_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import device_info, git_state, versions
from loragrid.scoring.heldout.kept_losses import OF_RUN
from loragrid.training.backends.adapters import parameter_counts
from loragrid.training.progress import Progress
from loragrid.training.run_session import PreparedRun, RunContext

FINISHED_COPY = "finished.json"


def make_record(
    run: PreparedRun,
    *,
    history: History,
    trained: Path | None,
    diverged: str | None,
) -> RunRecord:
    """The run's record. `trained` is the folder of its weights, and None if `diverged` says how it diverged."""
    cell, card = run.context.cell, run.data.card
    trainable, total = parameter_counts(run.trainer.model)
    return RunRecord(
        study=run.context.study.name,
        run=cell.run,
        model=cell.model,
        method=cell.settings.method,
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
        device=device_info() | {"gpus": run.context.ranks.count},
        code=code_digest("train"),
        weights_sha256=trained_sha256(trained) if trained else None,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        kept_at=_kept_at(run),
        notes=run.trainer.notes,
        attention=run.trainer.attention,
        rows_per_pass=run.trainer.layout.per_device,
        checkpointing=run.trainer.layout.checkpointing,
    )


def _kept_at(run: PreparedRun) -> tuple[float, ...]:
    """The shares whose weights are there; one that was asked for later than it passed is missing."""
    out, wanted = run.context.out, run.progress.keep_at
    kept = tuple(share for share in wanted if along_folder(out, share).is_dir())
    for share in sorted(set(wanted) - set(kept)):
        print_line(f"[{run.progress.run}] no weights at {share:g} of the budget: the run had passed it")
    return kept


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


def save_finished_copy(out: Path, record: RunRecord, *, fingerprint: dict[str, Any]) -> None:
    """Write the copy of a record, after the other final files and before record.json.

    Snakemake deletes record.json, its declared output, before it runs a job again: also if only
    Snakemake was killed and its orphaned trainer finished. The copy keeps that run from being
    trained twice.
    """
    content = {"fingerprint_sha256": sha256_json(fingerprint), "files": digests_of(out, _final_files(out))}
    write_json(out / FINISHED_COPY, content | {"record": dataclasses.asdict(record)})


def read_finished_copy(out: Path, *, fingerprint: dict[str, Any]) -> RunRecord | None:
    """The record of a finished run, or None if it must be trained (again).

    The copy counts if the fingerprint, code and data included, and every final file are unchanged.
    """
    path = out / FINISHED_COPY
    if not path.exists():
        return None
    try:
        kept = read_json(path)
        if kept["fingerprint_sha256"] != sha256_json(fingerprint):
            return None
        if kept["files"] != digests_of(out, _final_files(out)):
            return None
        return as_record(kept["record"], RunRecord, path)
    except (UserError, OSError, KeyError, TypeError):
        # A damaged copy proves nothing: the run is trained again.
        return None


def already_finished(context: RunContext) -> RunRecord:
    """The record of a finished run; removes checkpoints that a kill right after the record left."""
    path, run = context.out / "record.json", context.cell.run
    record = read_record(path, RunRecord)
    if record.run != run:
        line = f"{path}: belongs to run {record.run}, not {run}"
        raise UserError(f"{line}. Fix: give each run a folder of its own.")
    shutil.rmtree(context.out / "checkpoints", ignore_errors=True)
    print_line(f"[{run}] {record.status} at step {record.steps} before: nothing to do")
    return record


def trained_before(run: PreparedRun) -> RunRecord | None:
    """The record of a finished run whose record.json Snakemake deleted; None if it must train."""
    context = run.context
    record = read_finished_copy(context.out, fingerprint=run.store.fingerprint)
    if record is not None:
        print_line(
            f"[{context.cell.run}] {record.status} before with the same code, data and settings: "
            f"only its record is written again (delete {context.out} to train it again)"
        )
    return record


def remove_unfinished(out: Path) -> History:
    """Remove what an earlier session left unfinished; returns the history, that session closed."""
    break_seal(out)
    for name in ("failure.json", FINISHED_COPY):
        (out / name).unlink(missing_ok=True)
    # Without a record, weights are not final: they may come from other code or data.
    for name in (ADAPTER, MODEL):
        for folder in (name, f"{name}.partial"):
            shutil.rmtree(out / folder, ignore_errors=True)
    history = History(out / "history.jsonl")
    # A killed session could not log its end. Its losses show how far it came.
    step, seconds = last_position(out / "losses.csv")
    history.close_killed(last_step=step, last_seconds=seconds)
    return history


def final_digests(out: Path) -> dict[str, str]:
    """SHA-256 of a finished run's files by their path in its folder, for its seal."""
    # The finished copy has just been written or compared, so that nothing large is read again.
    sealed = read_json(out / FINISHED_COPY)["files"]
    return sealed | digests_of(out, [out / FINISHED_COPY])


def _final_files(out: Path) -> list[Path]:
    """The final files of a run: its losses and its weights, without the cards that are written for their readers."""
    # A diverged run has no adapter and no model.
    folders = (out / ADAPTER, out / MODEL, out / ALONG)
    weights = [file for folder in folders for file in folder.rglob("*") if file.is_file() and file.name != CARD]
    return [file for file in (out / "losses.csv", out / OF_RUN) if file.is_file()] + weights
