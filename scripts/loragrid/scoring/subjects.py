"""Who is scored: a run's adapter or an untrained base, checked to be what it claims to be."""

import json
from dataclasses import dataclass
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

# Packages whose version can change a score; a task kept by an interrupted job is scored again when one changed.
DECIDING = ("torch", "transformers", "peft", "lm_eval", "tokenizers", "bitsandbytes")


@dataclass(frozen=True)
class Subject:
    """What is scored and where it is: `adapter` and `record` are None for an untrained base."""

    name: str
    adapter: Path | None
    record: Path | None
    data: Path
    out: Path


@dataclass(frozen=True)
class Identity:
    """Who a subject is. `digest` stands for all that its scores depend on, apart from the tasks; `reason` says why it
    cannot be scored, None when it can."""

    kind: str
    model: str
    base: str
    adapter_sha256: str | None
    digest: str
    reason: str | None


def identify(study: Study, subject: Subject) -> Identity:
    """Check a subject against the study and its record. A diverged run has nothing to score, and `reason` says so.

    A record of another run, and an adapter that is missing or was changed since its record was written, are `UserError`s.
    """
    if (subject.adapter is None) != (subject.record is None):
        raise UserError(f"{subject.name}: give both --adapter and --record for a run, none of them for a base")
    if subject.record is None:
        known = study.bases
        if subject.name not in known:
            raise UserError(f"{study.path.name} has no base {subject.name}: for a run, give --adapter and --record")
        model = known[subject.name]
        return Identity("base", model, subject.name, None, _digest(study, subject, model, None), None)
    cell, record = study.cell(subject.name), read_record(subject.record, RunRecord)
    if record.run != subject.name:
        raise UserError(f"{subject.record} is the record of {record.run}, not of {subject.name}: give its own")
    if record.status == "diverged":
        return Identity("run", cell.model, cell.base, None, "", f"the run diverged: {record.reason}")
    check_adapter(subject.adapter, record)
    digest = _digest(study, subject, cell.model, record.adapter_sha256)
    return Identity("run", cell.model, cell.base, record.adapter_sha256, digest, None)


def check_adapter(adapter: Path, record: RunRecord) -> None:
    """The adapter must be the one its record was written for."""
    weights = adapter / "adapter_model.safetensors"
    for file in (weights, adapter / "adapter_config.json"):
        if not file.is_file():
            raise UserError(f"{file} is missing: train the run again")
    if record.adapter_sha256 != sha256_file(weights):
        raise UserError(f"{weights} was changed since its record was written (sha256 differs): train the run again")


def _digest(study: Study, subject: Subject, model: str, adapter_sha256: str | None) -> str:
    scoring, heldout = study.scoring, subject.data / "heldout.parquet"
    scores_heldout = HELDOUT_LOSS in scoring.tasks
    if scores_heldout and not heldout.is_file():
        raise UserError(f"{heldout} is missing: run prepare_data again")
    return sha256_json(
        {
            "model": model_identity(prepared_entry(study.models[model], subject.data)),
            "adapter": adapter_sha256,
            "adapter_config": sha256_file(subject.adapter / "adapter_config.json") if subject.adapter else None,
            "heldout": sha256_file(heldout) if scores_heldout else None,
            "scoring": {"limit": scoring.limit, "batch_size": scoring.batch_size},
            "versions": {name: version for name, version in versions().items() if name in DECIDING},
            "code": code_digest("score"),
        }
    )


def read_list(path: Path) -> list[Subject]:
    """Subjects from a file of JSON lines with the keys subject, data, out and, for a run, adapter and record."""
    subjects = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path given to --list") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            subjects.append(as_subject(row["subject"], row.get("adapter"), row.get("record"), row["data"], row["out"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}, line {number}: {error!r}: write an object with subject, data, out (and adapter, record)"
            ) from None
    return subjects


def as_subject(name: str, adapter: str | None, record: str | None, data: str, out: str) -> Subject:
    """A subject from text, as on a command line."""
    return Subject(name, Path(adapter) if adapter else None, Path(record) if record else None, Path(data), Path(out))
