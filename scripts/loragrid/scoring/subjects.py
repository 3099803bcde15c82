"""Subjects of scoring: runs' adapters and untrained bases, checked against study and records."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from loragrid.errors import UserError
from loragrid.models.model_files import prepared_entry
from loragrid.records.record import RunRecord, read_record
from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import versions
from loragrid.study.grid import model_identity
from loragrid.study.study_file import Study
from loragrid.study.tasks import HELDOUT_LOSS

# A task kept by an interrupted job is scored again if the version of one of these packages changed.
PACKAGES_AFFECTING_SCORES = ("torch", "transformers", "peft", "lm_eval", "tokenizers", "bitsandbytes")


@dataclass(frozen=True)
class Subject:
    """A run or base to score, and its files; `adapter` and `record` are None for an untrained base.

    `data` is the folder of the prepared data set, `out` the folder of the results.
    """

    name: str
    adapter: Path | None
    record: Path | None
    data: Path
    out: Path


@dataclass(frozen=True)
class SubjectIdentity:
    """What a subject is in its study.

    `kind`: "run" or "base"; `digest`: of everything that its scores depend on except the tasks;
    `reason`: why it cannot be scored, or None.
    """

    kind: str
    model: str
    base: str
    adapter_sha256: str | None
    digest: str
    reason: str | None


def identify(study: Study, subject: Subject) -> SubjectIdentity:
    """The subject's identity, after checks against the study and the run's record.

    A diverged run gets a `reason`. Raises `UserError` for the record of another run, and for an
    adapter that is missing or differs from its record.
    """
    if (subject.adapter is None) != (subject.record is None):
        raise UserError(
            f"{subject.name}: only one of --adapter and --record is given. "
            "Fix: give both for a run and none for a base."
        )
    if subject.record is None:
        model = study.bases.get(subject.name)
        if model is None:
            raise UserError(
                f"{study.path.name}: no base {subject.name}. Fix: check the id; for a run, give --adapter and --record."
            )
        digest = _digest(study, subject, model, adapter_sha256=None)
        return SubjectIdentity(
            kind="base", model=model, base=subject.name, adapter_sha256=None, digest=digest, reason=None
        )
    cell, record = study.cell(subject.name), read_record(subject.record, RunRecord)
    if record.run != subject.name:
        raise UserError(
            f"{subject.record} is the record of {record.run}, not of {subject.name}. Fix: give the run's own record."
        )
    identity = SubjectIdentity(
        kind="run", model=cell.model, base=cell.base, adapter_sha256=None, digest="", reason=None
    )
    if record.status == "diverged":
        return replace(identity, reason=f"the run diverged: {record.reason}")
    check_adapter(subject.adapter, record)
    digest = _digest(study, subject, cell.model, adapter_sha256=record.adapter_sha256)
    return replace(identity, adapter_sha256=record.adapter_sha256, digest=digest)


def check_adapter(adapter: Path, record: RunRecord) -> None:
    """Raise `UserError` unless the adapter is complete and is the one that its record describes."""
    weights = adapter / "adapter_model.safetensors"
    for file in (weights, adapter / "adapter_config.json"):
        if not file.is_file():
            raise UserError(f"{file} is missing. Fix: train the run again.")
    if record.adapter_sha256 != sha256_file(weights):
        raise UserError(
            f"{weights} was changed since its record was written (sha256 differs). Fix: train the run again."
        )


def _digest(study: Study, subject: Subject, model: str, *, adapter_sha256: str | None) -> str:
    scoring, adapter_config, heldout = study.scoring, None, None
    if subject.adapter is not None:
        # Alpha and the adapted modules are in the configuration, not in the weights.
        adapter_config = sha256_file(subject.adapter / "adapter_config.json")
    if HELDOUT_LOSS in scoring.tasks:
        rows = subject.data / "heldout.parquet"
        if not rows.is_file():
            raise UserError(f"{rows} is missing. Fix: run prepare_data again.")
        heldout = sha256_file(rows)
    packages = versions()
    return sha256_json(
        {
            "model": model_identity(prepared_entry(study.models[model], subject.data)),
            "adapter": adapter_sha256,
            "adapter_config": adapter_config,
            "heldout": heldout,
            "scoring": {"limit": scoring.limit, "batch_size": scoring.batch_size},
            "versions": {name: packages[name] for name in packages if name in PACKAGES_AFFECTING_SCORES},
            "code": code_digest("score"),
        }
    )


def read_subjects(path: Path) -> list[Subject]:
    """Subjects from JSON lines with the keys subject, data, out and, for a run, adapter and record."""
    subjects = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Fix: check the path given to --list.") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            subjects.append(
                make_subject(row["subject"], row.get("adapter"), row.get("record"), row["data"], row["out"])
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}, line {number}: not a subject ({error!r}). "
                "Fix: write an object with subject, data, out and, for a run, adapter and record."
            ) from None
    return subjects


def make_subject(name: str, adapter: str | None, record: str | None, data: str, out: str) -> Subject:
    """A subject from text, as on a command line."""
    return Subject(
        name=name,
        adapter=Path(adapter) if adapter else None,
        record=Path(record) if record else None,
        data=Path(data),
        out=Path(out),
    )
