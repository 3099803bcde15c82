"""Interface of a training backend: runs, records and checkpoints are the same whatever trains."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from loragrid.data.training_data import TrainingData
from loragrid.models.model_files import BaseFacts
from loragrid.study.batch_shares import StepLayout
from loragrid.study.sections import ModelEntry
from loragrid.training.backends.recipe import Recipe
from loragrid.training.checkpoints import CheckpointStore
from loragrid.training.progress import Progress


@dataclass(frozen=True)
class Base:
    """A frozen base model and its tokenizer, loaded once and used by one run after another.

    `model` is None after a run that changed the base's weights: the next `adapt` loads it again.
    """

    model: Any
    tokenizer: Any
    facts: BaseFacts
    entry: ModelEntry


class Trainer(Protocol):
    """What `Backend.trainer` returns: the part of transformers' Trainer that the stages use."""

    model: Any
    notes: tuple[str, ...]
    attention: str
    layout: StepLayout

    def lengths_tokens(self) -> list[int]:
        """Tokens of each training row, after packing."""

    def attach_progress(self, progress: Progress, store: CheckpointStore) -> None:
        """Let `progress` decide when to evaluate, save and stop, and `store` keep checkpoints."""

    def train(self, resume_from_checkpoint: str | None = None) -> Any:
        """Train to the planned number of updates, or until `progress` says stop."""

    def finish(self, checkpoint: str) -> None:
        """Load a checkpoint of the last step and make the measurement that may still be due."""


class Backend(Protocol):
    """A way to train; it imports its libraries in its methods, in the order that they need."""

    name: str

    def load(self, entry: ModelEntry, *, recipe: Recipe) -> Base:
        """Load a model entry of the study in its precision."""

    def adapt(self, base: Base, *, recipe: Recipe) -> Any:
        """The base with a fresh adapter, or with all weights trainable; the same seed draws the same adapter."""

    def release(self, base: Base, model: Any) -> Base:
        """The base as it was loaded, without the adapter."""

    def trainer(
        self,
        model: Any,
        *,
        base: Base,
        recipe: Recipe,
        data: TrainingData,
        folder: Path,
    ) -> Trainer:
        """A trainer that has not started; `attach_progress` comes before `train`."""
