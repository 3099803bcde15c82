"""The records that stages leave behind: frozen dataclasses, read and written here and nowhere else."""

import dataclasses
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from loragrid.errors import UserError
from loragrid.runtime.atomic_files import read_json, write_json

RECORD_SCHEMA = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """One uninterrupted stretch of a run's training, `start_step` ≤ step < `end_step`, and why it ended."""

    start_step: int
    end_step: int
    seconds: float
    host: str
    device: str
    ended: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What one training run was, cost and left. `tokens` counts non-padding input tokens over all updates,
    `loss_tokens` those that carried loss; losses are mean negative log-likelihoods per loss token, in nats.
    `notes` say what the backend did that the settings do not: precisions, and where it departs from what was asked."""

    study: str
    run: str
    model: str
    settings: dict[str, Any]
    status: Literal["finished", "diverged"]
    reason: str | None
    backend: str
    data_id: str
    data_fingerprint: str
    train_rows: int
    heldout_rows: int
    base_source: str
    base_commit: str | None
    base_sha256: str
    losses_file: str
    steps: int
    planned_steps: int
    samples: int
    tokens: int
    loss_tokens: int
    padding_share: float
    train_seconds: float
    tokens_per_second: float
    peak_vram_mib: float | None
    peak_rss_mib: float
    energy_joules: float | None
    trainable_parameters: int
    total_parameters: int
    final_train_loss: float | None
    first_heldout_loss: float | None
    final_heldout_loss: float | None
    sessions: tuple[Session, ...]
    versions: dict[str, str]
    git: dict[str, Any]
    device: dict[str, Any]
    code: str
    adapter_sha256: str | None
    finished_at: str
    notes: tuple[str, ...] = ()
    schema: int = RECORD_SCHEMA


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskScore:
    """One task's aggregate: metric name → {"value", "stderr", "higher_is_better"}; `reason` when it failed.

    A metric whose higher_is_better is None is evidence (how answers ended, how long they are), not a score.
    `notes` say what a reader must know: a task asked without the chat template, prompts that were cut.
    """

    group: Literal["target", "retention"]
    status: Literal["scored", "failed"]
    reason: str | None
    items: int
    primary_metric: str | None
    metrics: dict[str, dict[str, Any]]
    seconds: float
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreRecord:
    """The scores of one subject: a run's adapter on its base, or an untrained base. `base_commit` is that of a hub model;
    `notes` say where the precision is not the study file's."""

    study: str
    subject: str
    kind: Literal["base", "run"]
    model: str
    base: str
    status: Literal["scored", "not_scored"]
    reason: str | None
    adapter_sha256: str | None
    precision: str
    chat_template_sha256: str | None
    tasks: dict[str, TaskScore]
    seconds: float
    versions: dict[str, str]
    git: dict[str, Any]
    device: dict[str, Any]
    code: str
    finished_at: str
    base_commit: str | None = None
    notes: tuple[str, ...] = ()
    schema: int = RECORD_SCHEMA


Record = TypeVar("Record", RunRecord, ScoreRecord)


def write_record(path: Path | str, record: RunRecord | ScoreRecord) -> None:
    """Write a record as JSON, whole or not at all."""
    write_json(path, dataclasses.asdict(record))


def read_record(path: Path | str, kind: type[Record]) -> Record:
    """Read a record of `kind`; one that is missing, broken or of another schema is a `UserError` that names it."""
    return as_record(read_json(path), kind, path)


def as_record(value: Any, kind: type[Record], path: Path | str) -> Record:
    """A record of `kind` from the JSON that `path` holds."""
    if not isinstance(value, dict) or value.get("schema") != RECORD_SCHEMA:
        raise UserError(f"{path} is no record of schema {RECORD_SCHEMA}: delete it and run its stage again")
    try:
        return _build(kind, value)
    except (TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{path} is no whole {kind.__name__} ({error}): delete it and run its stage again") from None


def _build(kind: type, value: dict[str, Any]) -> Any:
    hints = _hints(kind)
    return kind(**{key: _convert(hints[key], item) for key, item in value.items()})


_hints = cache(typing.get_type_hints)  # resolving them takes longer than reading a record


def _convert(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value)
    if origin is tuple:
        return tuple(_convert(arguments[0], item) for item in value)
    if origin is dict and dataclasses.is_dataclass(arguments[1]):
        return {key: _convert(arguments[1], item) for key, item in value.items()}
    if origin is Literal and value not in arguments:
        raise TypeError(f"{value!r} is none of {', '.join(map(str, arguments))}")
    if isinstance(hint, types.UnionType) and value is not None:
        return _convert(arguments[0], value)
    return float(value) if hint is float else value
