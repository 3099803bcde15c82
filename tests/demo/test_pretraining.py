"""Pre-training of the demo's bases: the optimizer of the matrices, and what counts as converged."""

from itertools import islice

import pytest
import torch

from loragrid.demo.convergence import (
    HeldoutText,
    Measurement,
    as_curve,
    has_converged,
    last_part_of_fall,
    measured_steps,
    questions,
)
from loragrid.demo.corpus import as_text, documents
from loragrid.demo.muon import Muon, orthogonalised
from loragrid.demo.tokenizer import train_tokenizer


@pytest.mark.parametrize("shape", [(2, 8, 24), (1, 24, 8), (3, 16, 16)])
def test_orthogonalised_keeps_directions_and_makes_singular_values_alike(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonalised(matrices)
    values = torch.linalg.svdvals(found)
    assert found.shape == matrices.shape
    assert values.min() > 0.3 and values.max() < 1.3
    # Same singular vectors: U'XV is diagonal.
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    core = left.mT @ found @ right.mT
    assert torch.allclose(core, torch.diag_embed(core.diagonal(dim1=-2, dim2=-1)), atol=1e-4)


def test_muon_lowers_a_loss_and_takes_no_closure() -> None:
    weights = torch.nn.Parameter(torch.ones(6, 4))
    optimizer = Muon([weights], lr=0.1, weight_decay=0.0)
    before = (weights**2).sum().item()
    for _ in range(10):
        optimizer.zero_grad()
        (weights**2).sum().backward()
        optimizer.step()
    assert (weights**2).sum().item() < before
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)


def test_muon_decays_weights_by_the_rate() -> None:
    weights = torch.nn.Parameter(torch.ones(4, 4))
    weights.grad = torch.zeros(4, 4)
    Muon([weights], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(weights, torch.full((4, 4), 0.95))


def test_last_part_of_fall_starts_after_warm_up() -> None:
    steps = (0, 50, 500, 800, 1000)
    losses = (7.0, 3.0, 1.2, 1.1, 1.0)
    curve = as_curve([Measurement(step, loss, 0.0) for step, loss in zip(steps, losses, strict=True)])
    assert last_part_of_fall(curve, warmup_steps=50) == pytest.approx(0.1 / 2.0)
    assert last_part_of_fall(curve, warmup_steps=0) == pytest.approx(0.1 / 6.0)
    assert not has_converged(curve, warmup_steps=50)  # 5 % in the last fifth
    assert has_converged([*curve[:3], curve[3] | {"heldout_loss": 1.05}, curve[4]], warmup_steps=50)
    assert not has_converged([*curve[:3], curve[4] | {"step": 800}, curve[4] | {"answer_loss": 0.3}], warmup_steps=50)
    assert sorted(measured_steps(40)) == list(range(0, 41, 2))


def test_heldout_loss_is_that_of_each_document_alone() -> None:
    """Padding and passes of several rows change nothing: a model of uniform guesses has log V on every token."""

    class Uniform(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor):
            logits = torch.zeros(*input_ids.shape, 50)
            kept = labels[:, 1:] != -100
            loss = torch.nn.functional.cross_entropy(logits[:, :-1][kept], labels[:, 1:][kept] % 50)
            return type("Output", (), {"loss": loss})

    tokenizer = train_tokenizer(map(as_text, islice(documents(seed=1, world_seed=2), 200)), max_length_tokens=512)
    model = Uniform().train()
    measured = HeldoutText(tokenizer, world_seed=2).measure(model, step=7)
    log_50 = torch.tensor(50.0).log().item()
    assert measured.step == 7
    assert measured.heldout_loss == pytest.approx(log_50, abs=1e-5) == pytest.approx(measured.answer_loss, abs=1e-5)
    assert model.training


def test_questions_take_turns_and_are_seeded() -> None:
    first = list(islice(questions(seed=1, world_seed=2), 6))
    assert first == list(islice(questions(seed=1, world_seed=2), 6))
    assert all(answer.isdigit() for _, answer in first[1::3])
