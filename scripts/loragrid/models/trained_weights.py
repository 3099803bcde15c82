"""What each training method trains: the sizes of its tensors, from a model's shape.

Imports no torch. The counts equal those of PEFT's models; a test compares them for every method.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loragrid.errors import UserError
from loragrid.models.adapter_costs import COSTS, rank_problem
from loragrid.models.shape import Shape
from loragrid.study.settings import Settings

# Methods that change the base's weights while they train. What is saved is an adapter of the
# original base, which needs twice the rank (PEFT's conversion).
DOUBLED_RANK = ("pissa", "olora")
# Methods whose adapters PEFT holds as LoRA: while a float32 base is scored, they are merged into it.
MERGED = ("lora", "rslora", "lora_plus", "dora", "pissa", "olora")
# bitsandbytes keeps the states of tensors below this size in 32 bits.
EIGHT_BIT_FROM = 4096


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """The part of a run's settings that says what is trained; None for what the method lacks."""

    method: str
    rank: int | None
    target_modules: str | Sequence[str] | None

    @classmethod
    def of(cls, settings: Settings) -> "Trainable":
        """The part of a run's settings."""
        return cls(method=settings.method, rank=settings.rank, target_modules=settings.target_modules)


def trained_tensors(shape: Shape, trainable: Trainable) -> list[int]:
    """Parameters of each trained tensor; raises `UserError` for a module that the model lacks."""
    if trainable.method == "full":
        return shape.tensors()
    sizes: list[int] = []
    for module, (inputs, outputs) in shape.adapted_modules(trainable.target_modules):
        if trainable.method == "ia3":
            # Inputs of the feed-forward modules are scaled, outputs of all others, as in its paper (Liu et al.
            # 2022, https://arxiv.org/abs/2205.05638, section 3.3).
            sizes.append(inputs if shape.is_feed_forward(module) else outputs)
        else:
            sizes += COSTS[trainable.method].tensors(trainable.rank, inputs, outputs)
    return sizes


def added_frozen(shape: Shape, trainable: Trainable) -> int:
    """Numbers that a method adds and does not train, such as random matrices that all modules share."""
    if trainable.method not in COSTS:
        return 0
    rank, sizes = trainable.rank, shape.adapted_matrices(trainable.target_modules)
    own = summed(shape, trainable, "frozen")
    widest = max(inputs for inputs, _ in sizes), max(outputs for _, outputs in sizes)
    if trainable.method == "vera":
        return own + rank * sum(widest)
    if trainable.method == "randlora":
        bases = math.ceil(min(widest) / rank)
        return own + rank * min(widest) + bases * rank * max(widest)
    return own


def summed(shape: Shape, trainable: Trainable, figure: str) -> int:
    """The sum of a figure of `AdapterCost` over the adapted matrices; 0 for a method without a rank."""
    if trainable.method not in COSTS:
        return 0
    of_matrix = getattr(COSTS[trainable.method], figure)
    return sum(of_matrix(trainable.rank, *size) for size in shape.adapted_matrices(trainable.target_modules))


def check_rank(trainable: Trainable, modules: Iterable[tuple[str, tuple[int, int]]]) -> None:
    """Raise `UserError` for the first of (name, (inputs, outputs)) that cannot have the method's rank."""
    if trainable.rank is None:
        return
    for name, size in modules:
        found = rank_problem(trainable.method, trainable.rank, *size)
        if found is not None:
            problem, fix = found
            raise UserError(
                f"rank: the method {trainable.method} {problem.replace('NAME', name)}. "
                f"Fix: {fix}, or leave the layer out of target_modules."
            )


def loaded_parameters(shape: Shape, trainable: Trainable) -> int:
    """Parameters that scoring loads beside the base: those of the saved adapter.

    0 for `full`, whose weights take the place of the base's.
    """
    if trainable.method == "full":
        return 0
    trained = sum(trained_tensors(shape, trainable)) + added_frozen(shape, trainable)
    return 2 * trained if trainable.method in DOUBLED_RANK else trained


def merged_parameters(shape: Shape, trainable: Trainable) -> int:
    """Parameters of the base's matrices that an adapter is merged into, of which a copy is kept meanwhile."""
    if trainable.method not in MERGED:
        return 0
    return sum(inputs * outputs for inputs, outputs in shape.adapted_matrices(trainable.target_modules))


def optimizer_bytes(parameters: int, optimizer: str) -> float:
    """Bytes of the optimizer's states of one trained tensor; Adam keeps two numbers per parameter."""
    if optimizer.startswith("adamw_torch"):
        return 8 * parameters
    if optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        if parameters < EIGHT_BIT_FROM:
            return 8 * parameters
        # Two bytes per parameter and, per block of 256, a float32 scale of each state.
        return 2 * parameters + 8 * parameters / 256
    if optimizer == "adafactor":
        # A row and a column vector in place of the second moments (Shazeer & Stern 2018).
        return 4 * 2 * parameters**0.5
    return 0.0
