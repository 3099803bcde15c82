"""The sections of a study file as frozen dataclasses, one field per key.

Units and reasons are in workflow/schemas/study.schema.yaml, the one source of keys; a test compares
the two. The values come from a file that has passed the schema, so nothing is checked here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

Batch = tuple[int, int]  # rows per device, gradient accumulation steps


class Section:
    """Base class of the sections."""

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """The section that holds `settings`, a map of keys as in the study file."""
        values = {key: _frozen(value) for key, value in settings.items()}
        for key, kind in cls.nested().items():
            if settings[key] is not None:
                values[key] = kind.read(settings[key])
        return cls(**values)

    @classmethod
    def nested(cls) -> Mapping[str, type["Section"]]:
        """Key → class, for the keys whose values are sections themselves."""
        return {}


@dataclass(frozen=True, kw_only=True)
class DataSource(Section):
    """Origin of the rows: a file, a hub data set or a generator; other fields are None."""

    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    split: str | None = None
    generator: str | None = None
    rows: int | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class DataSettings(Section):
    """The rows, their split into training and held-out rows, and the tokens that carry loss."""

    source: DataSource
    max_length_tokens: int
    max_rows: int | None
    heldout_rows: int
    loss_on: str
    split_seed: int

    @classmethod
    def nested(cls) -> Mapping[str, type[Section]]:
        """Key → class, for the keys whose values are sections themselves."""
        return {"source": DataSource}


@dataclass(frozen=True, kw_only=True)
class ModelEntry(Section):
    """One base model: a local folder (`path`) or a hub model (`hub`, `revision`, `shape`)."""

    precision: str
    chat_template: str | None
    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    shape: Mapping[str, Any] | None = None

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a hub model."""
        return None if self.path is None else Path(self.path)


@dataclass(frozen=True, kw_only=True)
class BaseCase(Section):
    """The setting that every axis departs from."""

    model: str
    learning_rate: float
    rank: int
    batch: Batch
    seed: int


@dataclass(frozen=True, kw_only=True)
class Grid(Section):
    """The design and the values of each axis."""

    design: str
    learning_rate: tuple[float, ...]
    rank: tuple[int, ...]
    batch: tuple[Batch, ...]
    model: tuple[str, ...]
    seed: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Budget(Section):
    """Length of a run or a trial in exactly one unit; the other two are None."""

    tokens: int | None = None
    steps: int | None = None
    epochs: float | None = None

    @property
    def unit(self) -> str:
        """ "tokens", "steps" or "epochs"."""
        given = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]
        return given[0]

    @property
    def amount(self) -> int | float:
        """The budget in its unit."""
        return getattr(self, self.unit)


@dataclass(frozen=True, kw_only=True)
class Training(Section):
    """Training settings that all runs share."""

    backend: str
    budget: Budget
    warmup_steps: int
    weight_decay: float
    schedule: str
    optimizer: str
    max_grad_norm: float
    alpha: str | float
    dropout: float
    target_modules: str | tuple[str, ...]
    compute_dtype: str
    packing: bool
    evaluate_every_steps: int
    save_steps: int
    save_minutes: float
    keep_checkpoints: int
    session_minutes: float | None
    threads: int
    report_to: str

    @classmethod
    def nested(cls) -> Mapping[str, type[Section]]:
        """Key → class, for the keys whose values are sections themselves."""
        return {"budget": Budget}


@dataclass(frozen=True, kw_only=True)
class Scoring(Section):
    """Tasks and settings by which bases and runs are scored."""

    target: tuple[str, ...]
    retention: tuple[str, ...]
    qualitative: str | None
    limit: int | Mapping[str, int | None] | None
    batch_size: int
    threads: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks, target before retention."""
        return (*self.target, *self.retention)


@dataclass(frozen=True, kw_only=True)
class Compare(Section):
    """Statistical settings by which differences are judged."""

    correction: str
    alpha: float
    power: float
    bootstrap_draws: int
    seed: int
    retention_margin: float


@dataclass(frozen=True, kw_only=True)
class Pruner(Section):
    """Settings of the Hyperband pruner."""

    min_evaluations: int
    reduction_factor: int


@dataclass(frozen=True, kw_only=True)
class Tune(Section):
    """The hyperparameter search.

    `spaces`: name → parameter → {"low", "high", "log"} or {"choices"}.
    """

    enabled: bool
    trials: int
    budget: Budget
    evaluations: int
    heldout_rows: int | None
    objective: str
    seed: int
    startup_trials: int
    pruner: Pruner | None
    workers: int
    space: str
    spaces: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @classmethod
    def nested(cls) -> Mapping[str, type[Section]]:
        """Key → class, for the keys whose values are sections themselves."""
        return {"budget": Budget, "pruner": Pruner}


@dataclass(frozen=True, kw_only=True)
class Plan(Section):
    """Assumptions of the compute plan, used until measurements replace them."""

    card: str | None
    vram_mib: int | None
    session_minutes: float | None
    rows: int | None
    row_tokens: float


def _frozen(value: Any) -> Any:
    """`value` with lists as tuples, so that a reader cannot change the study for the others."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_frozen(item) for item in value)
    return value
