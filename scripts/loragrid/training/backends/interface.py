"""The interface of a training backend, so that a run, its records and its checkpoints are the same whatever trains it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loragrid.models.model_files import BaseFacts
from loragrid.study.sections import ModelEntry
from loragrid.training.backends.recipe import Recipe
from loragrid.training.checkpoints import CheckpointStore
from loragrid.training.progress import Progress

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Base:
    """A frozen base model and its tokenizer, loaded once and lent to one run after another."""

    model: Any
    tokenizer: Any
    facts: BaseFacts


class Trainer(Protocol):
    """What `Backend.trainer` returns: transformers' Trainer as far as the train stage uses it."""

    model: Any
    notes: tuple[str, ...]

    def lengths_tokens(self) -> list[int]:
        """Tokens of each training row as the trainer sees them, after packing."""

    def attach_progress(self, progress: Progress, store: CheckpointStore) -> None:
        """Let `progress` say how far to go and when to evaluate, save and stop, and `store` keep the checkpoints."""

    def train(self, resume_from_checkpoint: str | None = None) -> Any:
        """Train to the planned number of updates, or until the progress says stop."""

    def finish(self, checkpoint: str) -> None:
        """Load a checkpoint that has no update left to do and measure what is still to be measured."""


class Backend(Protocol):
    """A way to train. Imports its libraries in its methods, in the order that they need."""

    name: str

    def load(self, entry: ModelEntry, *, recipe: Recipe) -> Base:
        """Load a study file's model entry in its precision."""

    def adapt(self, base: Base, *, recipe: Recipe) -> Any:
        """Put fresh LoRA adapters on the base, drawn from the recipe's seed; the same for the same seed, always."""

    def release(self, base: Base, model: Any) -> Base:
        """Take the adapters off again: the base as it was loaded."""

    def trainer(
        self, model: Any, *, base: Base, recipe: Recipe, train: "Dataset", heldout: "Dataset", folder: Path
    ) -> Trainer:
        """A trainer that has not begun; `attach_progress` comes before `train`."""
