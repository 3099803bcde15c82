"""What the adapter of each method costs on one matrix: trained tensors, operations, memory. Imports no torch.

Each figure is a function of (rank, inputs, outputs). Tests compare all of them with PEFT's layers:
the tensors with their parameters, the operations with torch's own counter, the memory with what
autograd keeps.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Figure = Callable[[int, int, int], int]


def _zero(rank: int, inputs: int, outputs: int) -> int:
    return 0


@dataclass(frozen=True, kw_only=True)
class AdapterCost:
    """The cost of one method on a matrix.

    `tensors`: parameters of each trained tensor. `forward` and `backward`: operations per token
    beyond the base's own. `forward_once` and `backward_once`: operations of a pass whatever its
    number of tokens. `held`: float32 numbers of the size of a matrix that a forward pass keeps for
    its backward pass. `frozen`: numbers that come with the adapter and are not trained.
    """

    tensors: Callable[[int, int, int], list[int]]
    forward: Figure
    backward: Figure
    forward_once: Figure = _zero
    backward_once: Figure = _zero
    held: Figure = _zero
    frozen: Figure = _zero


def _two_matrices(rank: int, inputs: int, outputs: int) -> list[int]:
    return [rank * inputs, rank * outputs]


def _two_products(rank: int, inputs: int, outputs: int) -> int:
    return 2 * rank * (inputs + outputs)


def _whole_product(rank: int, inputs: int, outputs: int) -> int:
    return 2 * inputs * outputs


def _weights(rank: int, inputs: int, outputs: int) -> int:
    return inputs * outputs


LORA = AdapterCost(
    tensors=_two_matrices,
    forward=_two_products,
    backward=lambda *size: 2 * _two_products(*size),
)


def factors(number: int) -> tuple[int, int]:
    """The two factors of `number` that are closest to each other, the smaller one first."""
    smaller = max(divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0)
    return smaller, number // smaller


def _kronecker(rank: int, inputs: int, outputs: int) -> list[int]:
    """LoKr: a small matrix, times a large one that is two factors unless the rank is too high for that."""
    (in_small, in_large), (out_small, out_large) = factors(inputs), factors(outputs)
    small = [out_small * in_small]
    if rank < max(out_large, in_large) / 2:
        return [*small, out_large * rank, rank * in_large]
    return [*small, out_large * in_large]


def _bases(rank: int, inputs: int, outputs: int) -> int:
    """RandLoRA: number of random bases of a matrix, so many that their sum has full rank."""
    return math.ceil(min(inputs, outputs) / rank)


def _scaled_base(rank: int, inputs: int, outputs: int) -> int:
    return _bases(rank, inputs, outputs) * rank * min(inputs, outputs)


def _random_base(rank: int, inputs: int, outputs: int) -> int:
    return _bases(rank, inputs, outputs) * rank * max(inputs, outputs)


COSTS: Mapping[str, AdapterCost] = {
    **dict.fromkeys(("lora", "rslora", "lora_plus", "pissa", "olora", "loftq"), LORA),
    # Its weight norms need the product of A and B; PEFT takes no gradient of them (Liu et al. 2024,
    # https://arxiv.org/abs/2402.09353, section 4.3).
    "dora": AdapterCost(
        tensors=lambda rank, inputs, outputs: [rank * inputs, rank * outputs, outputs],
        forward=LORA.forward,
        backward=LORA.backward,
        # PEFT makes the product by sending the identity, one row per input, through the adapter.
        forward_once=lambda rank, inputs, outputs: 2 * rank * inputs * (inputs + outputs),
    ),
    # Two vectors; the random matrices are shared (`trained_weights.added_frozen`) and frozen.
    "vera": AdapterCost(
        tensors=lambda rank, inputs, outputs: [rank, outputs],
        forward=_two_products,
        backward=_two_products,
    ),
    # LoHa: the product of two pairs of matrices, entry by entry.
    "loha": AdapterCost(
        tensors=lambda *size: 2 * _two_matrices(*size),
        forward=_whole_product,
        backward=lambda *size: 2 * _whole_product(*size),
        forward_once=lambda rank, inputs, outputs: 4 * rank * inputs * outputs,
        backward_once=lambda rank, inputs, outputs: 12 * rank * inputs * outputs,
        held=_weights,
    ),
    "lokr": AdapterCost(
        tensors=_kronecker,
        forward=_whole_product,
        backward=lambda *size: 2 * _whole_product(*size),
        held=_weights,
    ),
    # HiRA: the weights times a product of two matrices, entry by entry.
    "hira": AdapterCost(
        tensors=_two_matrices,
        forward=_whole_product,
        backward=lambda *size: 2 * _whole_product(*size),
        forward_once=lambda rank, inputs, outputs: 2 * rank * inputs * outputs,
        backward_once=lambda rank, inputs, outputs: 4 * rank * inputs * outputs,
        held=_weights,
    ),
    "gralora": LORA,
    # OFT: rotations of blocks of inputs, by PEFT as a series of five products.
    "oft": AdapterCost(
        tensors=lambda block, inputs, outputs: [inputs * (block - 1) // 2],
        forward=lambda block, inputs, outputs: 2 * block * inputs,
        backward=lambda block, inputs, outputs: 4 * block * inputs,
        forward_once=lambda block, inputs, outputs: 6 * block**2 * inputs,
        backward_once=lambda block, inputs, outputs: 12 * block**2 * inputs,
        held=lambda block, inputs, outputs: 4 * block * inputs,
        # Where each number of a triangle is in its block.
        frozen=lambda block, inputs, outputs: block * (block - 1),
    ),
    "miss": AdapterCost(
        tensors=lambda rank, inputs, outputs: [rank * outputs],
        forward=lambda rank, inputs, outputs: 2 * rank * outputs,
        backward=lambda rank, inputs, outputs: 4 * rank * outputs,
    ),
    # RandLoRA: random bases that all matrices share, one of each pair scaled by trained vectors.
    "randlora": AdapterCost(
        tensors=lambda *size: [size[0] * _bases(*size), _bases(*size) * min(size[1:])],
        forward=lambda *size: 2 * (_scaled_base(*size) + _random_base(*size)),
        backward=lambda *size: 4 * _scaled_base(*size) + 2 * _random_base(*size),
        backward_once=lambda *size: 4 * _scaled_base(*size),
        held=lambda *size: _scaled_base(*size) + _random_base(*size),
    ),
    # SHiRA: some of the weights themselves, as many as LoRA's, with two indices each.
    "shira": AdapterCost(
        tensors=lambda rank, inputs, outputs: [rank * (inputs + outputs)],
        forward=_zero,
        backward=_whole_product,
        held=_weights,
        frozen=lambda rank, inputs, outputs: 2 * rank * (inputs + outputs),
    ),
    # DeLoRA: LoRA with normed columns, their bound, and the norms of the weights' columns.
    "delora": AdapterCost(
        tensors=lambda *size: [*_two_matrices(*size), 1],
        forward=LORA.forward,
        backward=LORA.backward,
        frozen=lambda rank, inputs, outputs: inputs,
    ),
}


def rank_problem(method: str, rank: int, inputs: int, outputs: int) -> tuple[str, str] | None:
    """(what is wrong, fix) if a method cannot have that rank on a matrix, else None."""
    smaller, size = min(inputs, outputs), f"{inputs} × {outputs}"
    # Decompositions of a matrix have at most as many parts as its smaller side.
    if method in ("pissa", "olora", "loftq") and rank > smaller:
        return (
            f"starts from {rank} parts of each matrix, and NAME has {smaller} ({size})",
            f"lower the rank to {smaller}",
        )
    if method == "shira" and rank * (inputs + outputs) > inputs * outputs:
        most = inputs * outputs // (inputs + outputs)
        return f"trains more weights at rank {rank} than NAME has ({size})", f"lower the rank to {most}"
    if method == "miss" and rank > inputs:
        return f"splits the inputs into groups of {rank}, and NAME has {inputs}", f"lower the rank to {inputs}"
    if method == "oft" and (inputs % rank or rank < 2):
        return f"rotates blocks of {rank} inputs, and NAME has {inputs}", f"choose a rank from 2 that divides {inputs}"
    if method == "gralora" and (rank % 2 or inputs % 2 or outputs % 2):
        return f"halves the rank and both sides of a matrix (rank {rank}, NAME {size})", "choose an even rank"
    return None
