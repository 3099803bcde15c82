"""Subjects of scoring: bases, runs and adopted adapters, checked against study and records."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from loragrid.errors import UserError
from loragrid.models.adapter_files import ADAPTER, ADAPTER_WEIGHTS, along_folder, trained_folder, trained_sha256
from loragrid.models.adapter_shapes import loaded_shapes
from loragrid.models.adopted_adapters import adapter_folder, base_note, check_adapter_folder
from loragrid.models.base_checks.values import check_finite
from loragrid.models.model_files import check_model_folder, prepared_entry, resolve_folder
from loragrid.records.record import RunRecord, read_record
from loragrid.records.seal import check_sealed
from loragrid.runtime.atomic_files import read_json, sha256_file, sha256_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.file_digests import session_sha256
from loragrid.runtime.provenance import versions
from loragrid.scoring.vllm_engine.process import engine_versions
from loragrid.study.adopted import Adopted
from loragrid.study.grid import Cell
from loragrid.study.identity import model_identity
from loragrid.study.run_names import run_of, share_of
from loragrid.study.sections import HELDOUT_LOSS, ModelEntry
from loragrid.study.study_file import Study

# A task kept by an interrupted job is scored again if the version of one of these packages changed.
PACKAGES_AFFECTING_SCORES = ("torch", "transformers", "peft", "lm_eval", "tokenizers", "bitsandbytes")


@dataclass(frozen=True)
class Subject:
    """A base, a run or an adopted adapter to score, and its files.

    `trained`: the folder of the run, None for the others. `data` is the folder of the prepared data
    set, `out` the folder of the results.
    """

    name: str
    trained: Path | None
    data: Path
    out: Path


@dataclass(frozen=True, kw_only=True)
class SubjectIdentity:
    """What a subject is in its study.

    `kind`: "base", "run" or "adopted"; `entry`: its base, in the precision that it is scored in;
    `weights`: what was trained, None for a base; `weights_sha256`: as in its score record; `share`:
    part of the run's budget; `source` and `commit`: where an adopted adapter is from; `digest`: of
    everything that its scores depend on except the tasks; `reason`: why it cannot be scored, or
    None.
    """

    kind: str
    model: str
    base: str
    entry: ModelEntry
    weights: Path | None = None
    weights_sha256: str | None = None
    share: float = 1.0
    source: str | None = None
    commit: str | None = None
    notes: tuple[str, ...] = ()
    digest: str = ""
    reason: str | None = None


def identify(study: Study, subject: Subject) -> SubjectIdentity:
    """The subject's identity, after checks against the study and the run's record.

    A diverged run gets a `reason`. Raises `UserError` for the record of another run, for weights
    that are missing or differ from their record, and for an adopted adapter that cannot be used.
    """
    if subject.trained is not None:
        identity = _run(study, subject)
    elif subject.name in study.adopted:
        identity = _adopted(study, subject, study.adopted[subject.name])
    elif subject.name in study.bases:
        identity = _identity(study, subject, study.bases[subject.name], kind="base")
    else:
        raise UserError(f"{study.path.name}: no base {subject.name}. Fix: check the id; for a run, give --trained.")
    return identity if identity.reason is not None else replace(identity, digest=_digest(study, subject, identity))


def check_weights(folder: Path, record: RunRecord) -> None:
    """Raise `UserError` unless a run's weights are complete and are those of its record."""
    check_complete(folder)
    check_sealed(folder)
    if record.weights_sha256 != trained_sha256(folder):
        raise UserError(
            f"{folder}: the weights were changed since their record was written (sha256 differs). "
            "Fix: train the run again."
        )


def check_complete(folder: Path) -> None:
    """Raise `UserError` if the folder of an adapter or of a whole model lacks a file."""
    if folder.name != ADAPTER:
        check_model_folder(folder)
        return
    for name in (ADAPTER_WEIGHTS, "adapter_config.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing. Fix: train the run again.")
    config = read_json(folder / "adapter_config.json")
    if not isinstance(config, dict) or "peft_type" not in config:
        raise UserError(
            f"{folder / 'adapter_config.json'}: not what PEFT writes (no peft_type). Fix: train the run again."
        )


def _identity(study: Study, subject: Subject, cell: Cell, *, kind: str) -> SubjectIdentity:
    check_sealed(subject.data)
    # The card of the data names the commit of the base that they were prepared with.
    entry = prepared_entry(study.scored_entry(cell), subject.data)
    return SubjectIdentity(kind=kind, model=cell.model, base=cell.base, entry=entry)


def _run(study: Study, subject: Subject) -> SubjectIdentity:
    run, share = run_of(subject.name), share_of(subject.name)
    cell, path = study.cell(run), subject.trained / "record.json"
    record = read_record(path, RunRecord)
    if record.run != run:
        raise UserError(f"{path} is the record of {record.run}, not of {run}. Fix: give the run's own folder.")
    identity = _identity(study, subject, cell, kind="run")
    identity = replace(identity, share=share, weights_sha256=record.weights_sha256)
    if share == 1:
        if record.status == "diverged":
            return replace(identity, reason=f"the run diverged: {record.reason}")
        weights = trained_folder(subject.trained)
        check_weights(weights, record)
        return replace(identity, weights=weights)
    # Weights kept before a run diverged are scored all the same.
    if share not in record.kept_at:
        why = "the run diverged before it" if record.status == "diverged" else "the run kept nothing there"
        return replace(identity, reason=f"{share:g} of the budget: {why}")
    weights = trained_folder(along_folder(subject.trained, share))
    check_complete(weights)
    check_sealed(weights)
    return replace(identity, weights=weights)


def _adopted(study: Study, subject: Subject, adopted: Adopted) -> SubjectIdentity:
    identity = _identity(study, subject, adopted.cell, kind="adopted")
    folder, commit = adapter_folder(adopted.key, adopted.entry)
    base, _ = resolve_folder(identity.entry)
    config = check_adapter_folder(folder, f"adopt.{adopted.key}", loaded_shapes(base))
    check_finite(folder / ADAPTER_WEIGHTS)
    note = base_note(config, identity.entry)
    return replace(
        identity,
        weights=folder,
        weights_sha256=trained_sha256(folder),
        source=adopted.entry.hub or adopted.entry.path,
        commit=commit,
        notes=("trained elsewhere: its training is not this study's", *([note] if note else [])),
    )


def _digest(study: Study, subject: Subject, identity: SubjectIdentity) -> str:
    scoring, weights, heldout = study.scoring, identity.weights, None
    trained = None if weights is None else trained_sha256(weights)
    if HELDOUT_LOSS in scoring.tasks:
        rows = subject.data / "heldout.parquet"
        if not rows.is_file():
            raise UserError(f"{rows} is missing. Fix: run prepare_data again.")
        heldout = session_sha256(rows)
    packages = versions()
    return sha256_json(
        {
            "model": model_identity(identity.entry),
            "precision": identity.entry.precision,
            "weights": trained,
            # Alpha and the adapted modules are in the configuration, not in the weights.
            "configurations": [sha256_file(file) for file in sorted(weights.glob("*config.json"))] if weights else [],
            "heldout": heldout,
            "scoring": {"limit": scoring.limit, "batch_size": scoring.batch_size},
            "engine": scoring_engine(study),
            "versions": {name: packages[name] for name in packages if name in PACKAGES_AFFECTING_SCORES},
            "code": code_digest("score"),
        }
    )


def scoring_engine(study: Study) -> dict[str, str]:
    """The engine that scores, and the versions of its own environment if it has one."""
    if study.scoring.engine == "hf":
        return {"engine": "hf"}
    return {"engine": "vllm"} | engine_versions()


def read_subjects(path: Path) -> list[Subject]:
    """Subjects from JSON lines with the keys subject, data, out and, for a run, trained."""
    subjects = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Fix: check the path given to --list.") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            subjects.append(make_subject(row["subject"], row.get("trained"), row["data"], row["out"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}, line {number}: not a subject ({error!r}). "
                "Fix: write an object with subject, data, out and, for a run, trained."
            ) from None
    return subjects


def make_subject(name: str, trained: str | None, data: str, out: str) -> Subject:
    """A subject from text, as on a command line."""
    return Subject(name=name, trained=Path(trained) if trained else None, data=Path(data), out=Path(out))
