"""The records of runs and scores: frozen dataclasses, read and written in this module only."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from loragrid.errors import UserError, one_line
from loragrid.records.seal import SEALED, check_sealed, write_seal
from loragrid.runtime.atomic_files import json_text, read_json, write_json, write_text

RECORD_SCHEMA = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """One uninterrupted stretch of a run's training, and why it ended."""

    start_step: int
    end_step: int
    seconds: float
    host: str
    device: str
    ended: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Settings, cost and results of one training run.

    `tokens` counts the non-padding input tokens of all updates, `loss_tokens` those that carried
    loss. Losses are mean negative log-likelihoods per loss token, nats. `notes` are the backend's
    own choices: precisions, and departures from the settings. `attention`: its implementation, as the
    library calls it. `kept_at`: parts of the budget, below 1, after which the weights were kept. `rows_per_pass`:
    the rows of an update that ran at once, and `checkpointing`: whether their activations were computed again; None
    in records from before these fields.
    """

    study: str
    run: str
    model: str
    method: str
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
    weights_sha256: str | None
    finished_at: str
    kept_at: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    attention: str = ""
    rows_per_pass: int | None = None
    checkpointing: bool | None = None
    schema: int = RECORD_SCHEMA

    @property
    def gpus(self) -> int:
        """GPUs, or processes on a CPU, that trained the run together."""
        return self.device.get("gpus", 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskScore:
    """The result of one task. `metrics`: name → {"value", "stderr", "higher_is_better"}.

    A metric whose higher_is_better is None is evidence and no score, such as the length of answers.
    `notes` qualify the result: a task asked without the chat template, or prompts that were cut.
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
    """The scores of one subject: a run, an adopted adapter, or an untrained base.

    `share`: part of the run's budget after which its weights were kept, 1 for the end.
    `weights_sha256` is that of the run's record, by which scores of a run that was trained again
    are noticed, or that of the adopted adapter's weights. `base_commit` is None for a local model;
    `source` and `source_commit` say where an adopted adapter is from. `engine`: "hf" or "vllm", whose
    version is then in `versions`. `notes` name departures from
    the study file's precision and what is known of an adopted adapter.
    """

    study: str
    subject: str
    kind: Literal["base", "run", "adopted"]
    model: str
    base: str
    status: Literal["scored", "not_scored"]
    reason: str | None
    weights_sha256: str | None
    precision: str
    chat_template_sha256: str | None
    tasks: dict[str, TaskScore]
    seconds: float
    versions: dict[str, str]
    git: dict[str, Any]
    device: dict[str, Any]
    code: str
    finished_at: str
    share: float = 1.0
    base_commit: str | None = None
    source: str | None = None
    source_commit: str | None = None
    notes: tuple[str, ...] = ()
    engine: str = "hf"
    schema: int = RECORD_SCHEMA


Record = TypeVar("Record", RunRecord, ScoreRecord)


def write_record(path: Path | str, record: RunRecord | ScoreRecord) -> None:
    """Write a record as JSON, atomically."""
    write_json(path, dataclasses.asdict(record))


def write_sealed_record(path: Path, record: RunRecord | ScoreRecord, digests: Mapping[str, str]) -> None:
    """Write a record, the last file of its folder, after the seal of the folder's other files (`digests_of`)."""
    text = json_text(dataclasses.asdict(record) | {SEALED: True})
    write_seal(path.parent, digests, record=path.name, text=text)
    write_text(path, text)


def read_record(path: Path | str, kind: type[Record]) -> Record:
    """Read a record of `kind`; a missing, broken, outdated or changed file is a `UserError`."""
    check_sealed(Path(path))
    return as_record(read_json(path), kind, path)


def find_record(path: Path, kind: type[Record]) -> tuple[Record | None, str | None]:
    """The record, and the reason why it cannot be read. Both are None if there is no file."""
    if not path.is_file():
        return None, None
    try:
        return read_record(path, kind), None
    except UserError as error:
        return None, one_line(str(error))


def as_record(value: Any, kind: type[Record], path: Path | str) -> Record:
    """A record of `kind` from the JSON that `path` holds."""
    if not isinstance(value, dict) or value.get("schema") != RECORD_SCHEMA:
        raise UserError(f"{path}: not a record of schema {RECORD_SCHEMA}. Fix: delete it and run its stage again.")
    try:
        # Strict: a missing or an unknown key is a TypeError of the dataclass.
        return _build(kind, {key: item for key, item in value.items() if key != SEALED})
    except (TypeError, AttributeError, KeyError) as error:
        line = f"{path}: not a complete {kind.__name__} ({error}). Fix: delete it and run its stage again."
        raise UserError(line) from None


def _build(kind: type, value: dict[str, Any]) -> Any:
    hints = _hints(kind)
    return kind(**{key: _convert(hints[key], item) for key, item in value.items()})


# Resolving type hints takes longer than reading a record, and a large study has thousands of
# records.
_hints = cache(typing.get_type_hints)


def _convert(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value)
    if origin is tuple:
        return tuple(_convert(arguments[0], item) for item in value)
    if origin is dict and dataclasses.is_dataclass(arguments[1]):
        return {key: _convert(arguments[1], item) for key, item in value.items()}
    if origin is Literal and value not in arguments:
        raise TypeError(f"{value!r} is not one of {', '.join(map(str, arguments))}")
    if isinstance(hint, types.UnionType) and value is not None:
        return _convert(arguments[0], value)
    # JSON has one kind of number: a 2 in the file is read as an int even if the field is a float.
    return float(value) if hint is float else value
