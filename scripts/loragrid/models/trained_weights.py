"""What each training method trains: the sizes of its tensors, from a model's shape.

Imports no torch. The counts equal those of PEFT's models; a test compares them for every method.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from loragrid.models.shape import Shape
from loragrid.study.settings import Settings

# Modules of (IA)³ whose inputs are scaled, as in its paper (Liu et al. 2022,
# https://arxiv.org/abs/2205.05638, section 3.3); the outputs of all others are.
FEED_FORWARD = (".down_proj",)
# Methods that change the base's weights while they train. What is saved is an adapter of the
# original base, which needs twice the rank (PEFT's conversion).
DOUBLED_RANK = ("pissa", "olora")


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
    method, rank = trainable.method, trainable.rank
    if method == "full":
        return shape.tensors()
    sizes: list[int] = []
    for module, (inputs, outputs) in shape.adapted_modules(trainable.target_modules):
        if method == "ia3":
            sizes.append(inputs if module.endswith(FEED_FORWARD) else outputs)
        elif method == "vera":
            sizes += [rank, outputs]
        else:
            sizes += [rank * inputs, rank * outputs]
            if method == "dora":
                sizes.append(outputs)
    return sizes


def added_frozen(shape: Shape, trainable: Trainable) -> int:
    """Parameters that a method adds and does not train: VeRA's matrices, which all modules share."""
    if trainable.method != "vera":
        return 0
    sizes = shape.adapted_matrices(trainable.target_modules)
    return trainable.rank * (max(inputs for inputs, _ in sizes) + max(outputs for _, outputs in sizes))


def product_weights(shape: Shape, trainable: Trainable) -> int:
    """Weights of the matrix products that an adapter adds to a forward pass."""
    if trainable.rank is None:
        return 0
    return sum(trainable.rank * sum(size) for size in shape.adapted_matrices(trainable.target_modules))


def loaded_parameters(shape: Shape, trainable: Trainable) -> int:
    """Parameters that scoring loads beside the base: those of the saved adapter.

    0 for `full`, whose weights take the place of the base's.
    """
    if trainable.method == "full":
        return 0
    trained = sum(trained_tensors(shape, trainable)) + added_frozen(shape, trainable)
    return 2 * trained if trainable.method in DOUBLED_RANK else trained
