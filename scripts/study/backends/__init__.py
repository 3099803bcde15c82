"""What trains: one small interface, so that a run, its records and its checkpoints are the same whatever is behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from study.base_facts import BaseFacts
from study.checkpoint import CheckpointStore
from study.course import Course
from study.errors import UserError
from study.packages import ON_GPU, check_packages, require

if TYPE_CHECKING:
    from datasets import Dataset

    from study.grid import Cell
    from study.study_file import Study


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything about one training run that is neither its data nor its length. `compute_dtype` is resolved, not auto."""

    learning_rate: float
    rank: int
    alpha: float
    dropout: float
    target_modules: str | Sequence[str]
    per_device: int
    accumulation: int
    seed: int
    warmup_steps: int
    weight_decay: float
    schedule: str
    optimizer: str
    max_grad_norm: float
    packing: bool
    max_length_tokens: int
    compute_dtype: str
    device: str
    threads: int
    report_to: str


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

    def follow(self, course: Course, store: CheckpointStore) -> None:
        """Let `course` say how far to go and when to evaluate, save and stop, and `store` keep the checkpoints."""

    def train(self, resume_from_checkpoint: str | None = None) -> Any:
        """Train to the planned number of updates, or until the course says stop."""

    def finish(self, checkpoint: str) -> None:
        """Load a checkpoint that has no update left to do and measure what is still to be measured."""


class Backend(Protocol):
    """A way to train. Imports its libraries in its methods, in the order that they need."""

    name: str

    def load(self, entry: dict[str, Any], *, recipe: Recipe) -> Base:
        """Load a study file's model entry in its precision."""

    def adapt(self, base: Base, *, recipe: Recipe) -> Any:
        """Put fresh LoRA adapters on the base, drawn from the recipe's seed; the same for the same seed, always."""

    def release(self, base: Base, model: Any) -> Base:
        """Take the adapters off again: the base as it was loaded."""

    def trainer(
        self, model: Any, *, base: Base, recipe: Recipe, train: "Dataset", heldout: "Dataset", folder: Path
    ) -> Trainer:
        """A trainer that has not begun; `follow` comes before `train`."""


def choose_backend(name: str, *, device: str, folder: Path | None = None) -> Backend:
    """The backend of that name; `auto` is unsloth on CUDA and trl elsewhere, and never falls back in silence.

    `folder` is the run's, where a backend may keep what it compiles until the run is done.
    """
    if name == "auto":
        name = "unsloth" if device == "cuda" else "trl"
    if name == "unsloth":
        require(
            "unsloth",
            "training.backend (auto means unsloth on a CUDA GPU)",
            install=ON_GPU,
            mend="set training.backend to trl",
        )
        from study.backends.unsloth import UnslothBackend

        return UnslothBackend(folder)
    from study.backends.trl import TrlBackend

    return TrlBackend()


def make_recipe(study: "Study", cell: "Cell", *, device: str) -> Recipe:
    """The recipe of a cell on this machine; what the machine lacks for it is a `UserError`."""
    training, data = study.settings["training"], study.settings["data"]
    check_packages(training, study.settings["models"][cell.model])
    taken = ("dropout", "target_modules", "warmup_steps", "weight_decay", "schedule", "optimizer", "max_grad_norm")
    return Recipe(
        learning_rate=cell.learning_rate,
        rank=cell.rank,
        alpha=cell.rank if training["alpha"] == "rank" else training["alpha"],
        per_device=cell.batch[0],
        accumulation=cell.batch[1],
        seed=cell.seed,
        packing=training["packing"],
        max_length_tokens=data["max_length_tokens"],
        compute_dtype=resolve_dtype(training["compute_dtype"], device=device),
        device=device,
        threads=training["threads"],
        report_to=training["report_to"],
        **{key: training[key] for key in taken},
    )


def resolve_dtype(name: str, *, device: str) -> str:
    """ "fp32", "bf16" or "fp16"; `auto` is bf16 where the card has it, fp16 on other CUDA cards, fp32 on a CPU."""
    import torch

    has_bf16 = device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return "fp32" if device == "cpu" else "bf16" if has_bf16 else "fp16"
    if name == "fp16" and device == "cpu":
        raise UserError("training.compute_dtype: a CPU does not train in fp16: set it to fp32, bf16 or auto")
    if name == "bf16" and not has_bf16:
        raise UserError("training.compute_dtype: this GPU has no bf16: set it to fp16 or auto")
    return name
