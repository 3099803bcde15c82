"""The settings that determine a run, as a frozen dataclass, and the base class of all sections.

Units and reasons are in workflow/schemas/study.schema.yaml, the one source of keys; a test compares
the two. The values come from a file that has passed the schema, so nothing is checked here.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

Batch = tuple[int, int]  # rows per device, gradient accumulation steps


class Section:
    """Base class of the sections."""

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """The section that holds `settings`, a map of keys as in the study file."""
        values = {key: _frozen(value) for key, value in settings.items()}
        for key, kind in cls.nested().items():
            if settings.get(key) is not None:
                values[key] = kind.read(settings[key])
        return cls(**values)

    @classmethod
    def nested(cls) -> Mapping[str, type["Section"]]:
        """Key → class, for the keys whose values are sections themselves."""
        return {}


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
class Warmup(Section):
    """Length of the warm-up in exactly one unit; the other is None."""

    steps: int | None = None
    ratio: float | None = None

    def updates(self, planned: int) -> int:
        """Optimizer updates of the warm-up in a run of `planned` updates."""
        if self.steps is not None:
            return self.steps
        # As in transformers: a warm-up of part of an update is one update.
        return math.ceil(self.ratio * planned)


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """Everything that determines a run. Settings that its method does not have are None.

    In a cell, `alpha` and `learning_rate` are numbers; in the study file they may be expressions of
    the rank.
    """

    model: str
    data: str
    method: str
    learning_rate: float
    rank: int | None
    alpha: float | None
    dropout: float | None
    target_modules: str | tuple[str, ...] | None
    learning_rate_ratio: float | None
    batch: Batch
    seed: int
    budget: Budget
    schedule: str
    warmup: Warmup
    weight_decay: float
    optimizer: str
    max_grad_norm: float
    packing: bool
    loss_on: str
    max_length_tokens: int
    precision: str
    compute_dtype: str
    backend: str
    evaluations: int
    threads: int

    @classmethod
    def nested(cls) -> Mapping[str, type[Section]]:
        """Key → class, for the keys whose values are sections themselves."""
        return {"budget": Budget, "warmup": Warmup}

    @property
    def per_device(self) -> int:
        """Rows per device and batch."""
        return self.batch[0]

    @property
    def accumulation(self) -> int:
        """Gradient accumulation steps, batches per update."""
        return self.batch[1]


def _frozen(value: Any) -> Any:
    """`value` with lists as tuples and maps read-only, so that a reader cannot change the study for the others."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    return value
