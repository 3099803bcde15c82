"""Floating-point operations from shapes, against torch's own counter on small models."""

import pytest

from loragrid.models.flops import forward_per_token, training_per_token
from loragrid.models.trained_weights import Trainable
from tests.fixtures.tuned_llama import RANK, tuned_model

ROWS, LENGTH = 2, 64


@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_are_those_that_torch_counts(checkpointing: bool) -> None:
    """Equal but for causal attention, which torch computes in full (the formula counts the half that is needed), and the first
    layer's share that needs no gradient of its inputs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, shape = tuned_model(checkpointing)
    ids = torch.randint(0, 300, (ROWS, LENGTH))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    lora = Trainable(method="lora", rank=RANK, target_modules="all-linear")
    parts = training_per_token(shape, lora, row_tokens=LENGTH, checkpointing=checkpointing)
    full_attention = (4 if checkpointing else 3) * 4 * shape.layers * shape.heads * shape.head_dim * LENGTH
    expected = ROWS * LENGTH * (sum(parts.values()) + full_attention / 2)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.04)


def test_forward_operations_are_those_that_torch_counts() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, shape = tuned_model(False)
    with model.disable_adapter(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros((ROWS, LENGTH), dtype=torch.long), use_cache=False)
    attention = 4 * shape.layers * shape.heads * shape.head_dim * LENGTH
    expected = ROWS * LENGTH * (forward_per_token(shape, row_tokens=LENGTH) + attention / 2)
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-4)  # the rotary embedding takes a little
