"""What an adapter costs on one matrix: PEFT's tensors, torch's count of operations, what autograd keeps."""

from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.models.adapter_costs import COSTS, factors
from loragrid.models.trained_weights import Trainable, check_rank
from loragrid.training.backends.adapters import peft_config
from loragrid.training.backends.recipe import Recipe

SIZE = (4, 96, 160)  # rank, inputs, outputs
ROWS = 5


def adapted(method: str) -> Any:
    """A model of one linear layer with an adapter of random weights."""
    import torch
    from peft import get_peft_model

    class OneMatrix(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = torch.nn.Linear(SIZE[1], SIZE[2], bias=False)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.matrix(rows)

    given = {"method": method, "rank": SIZE[0], "alpha": SIZE[0], "dropout": 0.0, "seed": 7}
    config = peft_config(None, Recipe(**dict.fromkeys(Recipe.__dataclass_fields__) | given), ["matrix"])
    config.task_type = None
    model = get_peft_model(OneMatrix(), config)
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    return model


@pytest.mark.parametrize("method", COSTS)
def test_tensors_are_those_of_peft(method: str) -> None:
    sizes = [weight.numel() for weight in adapted(method).parameters() if weight.requires_grad]
    assert sorted(sizes) == sorted(COSTS[method].tensors(*SIZE))


@pytest.mark.parametrize("method", COSTS)
def test_operations_are_those_that_torch_counts(method: str) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, cost = adapted(method), COSTS[method]

    def counted(rows: int) -> int:
        inputs = torch.randn(rows, SIZE[1], requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            model(inputs).sum().backward()
        return counter.get_total_flops()

    few, many = counted(ROWS), counted(2 * ROWS)
    base = 4 * SIZE[1] * SIZE[2]
    assert many - few == ROWS * (base + cost.forward(*SIZE) + cost.backward(*SIZE))
    once = cost.forward_once(*SIZE) + cost.backward_once(*SIZE)
    # Products of LoKr's small factors, which are less than the matrix has weights, are left out.
    assert 2 * few - many == pytest.approx(once, abs=SIZE[1] * SIZE[2] if method == "lokr" else 0)


@pytest.mark.parametrize("method", COSTS)
def test_what_is_held_for_the_backward_pass_is_what_autograd_keeps(method: str) -> None:
    import torch

    model, kept = adapted(method), {}
    own = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def keep(tensor: Any) -> Any:
        if tensor.layout == torch.strided and tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    rows = torch.randn(1, SIZE[1], requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(rows)
    found = sum(tensor.untyped_storage().nbytes() // 4 for tensor in kept.values())
    held = COSTS[method].held(*SIZE)
    if method == "randlora":
        # In a model of several sizes the random base is a copy of a part of the largest one.
        held -= SIZE[0] * 24 * SIZE[2]
    activations = 4 * (SIZE[1] + SIZE[2])
    if method == "dora":
        # Transient weights of its norms; the memory model counts those of the largest matrix.
        held += SIZE[1] * (SIZE[1] + 2 * SIZE[0])
    assert held <= found <= held + activations and outputs.requires_grad


@pytest.mark.parametrize(
    ("method", "rank", "size", "message"),
    [
        (
            "pissa",
            17,
            (16, 64),
            "starts from 17 parts of each matrix, and k_proj has 16 (16 × 64). Fix: lower the rank to 16,",
        ),
        ("shira", 20, (32, 16), "trains more weights at rank 20 than k_proj has (32 × 16). Fix: lower the rank to 10,"),
        ("miss", 40, (32, 64), "splits the inputs into groups of 40, and k_proj has 32. Fix: lower the rank to 32,"),
        (
            "oft",
            5,
            (32, 64),
            "rotates blocks of 5 inputs, and k_proj has 32. Fix: choose a rank from 2 that divides 32",
        ),
        ("oft", 1, (32, 64), "rotates blocks of 1 inputs"),
        (
            "gralora",
            5,
            (32, 64),
            "halves the rank and both sides of a matrix (rank 5, k_proj 32 × 64). Fix: choose an even",
        ),
    ],
)
def test_a_rank_that_a_matrix_cannot_have_is_refused(method: str, rank: int, size: tuple, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_rank(Trainable(method=method, rank=rank, target_modules="all-linear"), [("k_proj", size)])
    assert f"rank: the method {method} {message}" in str(caught.value)
    check_rank(Trainable(method=method, rank=2, target_modules="all-linear"), [("k_proj", size)])


def test_the_factors_are_those_of_peft() -> None:
    from peft.tuners.lokr.layer import factorization

    assert [factors(number) for number in range(1, 3000)] == [factorization(number) for number in range(1, 3000)]
