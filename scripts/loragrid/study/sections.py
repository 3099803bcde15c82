"""The sections of a study file as frozen dataclasses, one field per key.

Units and reasons are in workflow/schemas/study.schema.yaml, the one source of keys; a test compares
the two. The values come from a file that has passed the schema, so nothing is checked here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.study.settings import Budget, Section

AS_TRAINED = "as_trained"  # `scoring.precision` for that of each run
HELDOUT_LOSS = "heldout_loss"  # the loss on held-out rows, as a task in `scoring`
VALIDATION_LOSS = "validation_loss"  # the loss on the search's own rows, as an objective in `tune`


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
class Filters(Section):
    """Rows of a data set to leave out."""

    min_characters: int
    max_characters: int | None
    min_turns: int
    max_turns: int | None
    near_duplicates: str


@dataclass(frozen=True, kw_only=True)
class DataSet(Section):
    """A set of rows: one `source`, or a `mix` of other sets with their weights; the other is None.

    `bad_rows`: "stop" or "drop", `columns`: use → column, and `roles`: speaker → role; None for a mix.
    """

    rows: int | None
    long_rows: str
    filters: Filters
    source: DataSource | None = None
    bad_rows: str | None = None
    columns: Mapping[str, str] | None = None
    roles: Mapping[str, str] | None = None
    mix: Mapping[str, float] | None = None

    @classmethod
    def nested(cls) -> Mapping[str, type[Section]]:
        """Key → class, for the keys whose values are sections themselves."""
        return {"source": DataSource, "filters": Filters}


@dataclass(frozen=True, kw_only=True)
class Heldout(Section):
    """The held-out rows: the data set that they come from, their number and the split's seed."""

    set: str
    rows: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class ModelEntry(Section):
    """One base model: a local folder (`path`) or a hub model (`hub`, `revision`, `shape`).

    The study file gives the precision for a run; `Study.base_entry` puts it here, for the code that
    loads a base.
    """

    chat_template: str | None
    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    shape: Mapping[str, Any] | None = None
    precision: str | None = None

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a hub model."""
        return None if self.path is None else Path(self.path)


@dataclass(frozen=True, kw_only=True)
class AdoptedAdapter(Section):
    """An adapter that was trained elsewhere: a folder or a hub id, and the key of its base."""

    model: str
    path: str | None = None
    hub: str | None = None
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Grid(Section):
    """The design, the values of each axis, and arms that depart in several settings.

    `axes`: setting → values; `tied`: what departs in each arm; `cells`: the same by name; `arm_seeds`:
    "arm", what departs in it, and its further "seeds".
    """

    design: str
    axes: Mapping[str, tuple[Any, ...]]
    tied: tuple[Mapping[str, Any], ...]
    cells: Mapping[str, Mapping[str, Any]]
    base_case_seeds: tuple[int, ...]
    arm_seeds: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Training(Section):
    """How runs are trained, without effect on their result."""

    save_steps: int
    save_minutes: float
    keep_checkpoints: int
    session_minutes: float | None
    report_to: str
    gpus: int
    fold_batches: bool
    liger_kernels: bool


@dataclass(frozen=True, kw_only=True)
class Scoring(Section):
    """Tasks and settings by which bases and runs are scored."""

    target: tuple[str, ...]
    retention: tuple[str, ...]
    qualitative: str | None
    limit: int | Mapping[str, int | None] | None
    engine: str
    precision: str
    batch_size: int
    at: tuple[float, ...]
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
    validation_rows: int | None
    objective: str
    sampler: str
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

    @property
    def task(self) -> str | None:
        """The task of `scoring` whose metric is optimised; None for the validation loss."""
        return self.objective.rpartition(":")[0] or None

    @property
    def metric(self) -> str | None:
        """The metric of `task` that is optimised; None for the validation loss."""
        return None if self.task is None else self.objective.rpartition(":")[2]


@dataclass(frozen=True, kw_only=True)
class Plan(Section):
    """Assumptions of the compute plan, used until measurements replace them."""

    card: str | None
    vram_mib: int | None
    session_minutes: float | None
    rows: int | None
    row_tokens: float
