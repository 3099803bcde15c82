"""LoRA's layers on a CPU as the backend trl computes them: PEFT's own results, and PEFT's own layers otherwise."""

from pathlib import Path
from typing import Any

import pytest

from loragrid.training.backends import trl_trainer
from loragrid.training.backends.lora_layers import speed_up_lora
from loragrid.training.kill_and_resume import certify_resume
from tests.fixtures.train_toys import make_toy, rows_of
from tests.training.test_packing import load
from tools.certify import import_training_libraries


def adapted(folder: Path, **changes: Any) -> Any:
    """A toy with an adapter whose matrices are all drawn, B too."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    options = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "init_lora_weights": False} | changes
    return get_peft_model(load(folder, "sdpa"), LoraConfig(task_type="CAUSAL_LM", **options))


def replaced(model: Any) -> int:
    """The number of layers whose forward pass is not PEFT's."""
    return sum("forward" in vars(layer) for layer in model.modules())


@pytest.mark.parametrize("family", ["toy_llama", "toy_gemma"])
def test_loss_and_gradients_are_those_of_peft(family: str, request: pytest.FixtureRequest) -> None:
    """Two rows at once, with a scale other than 1 and, in one layer, a bias."""
    import torch

    plain, ours = (adapted(request.getfixturevalue(family)) for _ in range(2))
    for model in (plain, ours):
        base = next(layer.base_layer for layer in model.modules() if hasattr(layer, "lora_A"))
        base.bias = torch.nn.Parameter(torch.linspace(-0.1, 0.1, base.out_features), requires_grad=False)
    speed_up_lora(ours)
    assert replaced(plain) == 0 and replaced(ours) == sum(hasattr(layer, "lora_A") for layer in ours.modules()) > 7
    ids = torch.randint(7, 263, (2, 19))
    losses = [model(input_ids=ids, labels=ids, use_cache=False).loss for model in (plain, ours)]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-6)
    for loss in losses:
        loss.backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), ours.named_parameters(), strict=True):
        if a.requires_grad:
            assert a.grad.abs().max() > 0 and torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-7), name
        else:
            assert b.grad is None


def test_layers_that_do_more_stay_as_they_are(toy_llama: Path) -> None:
    """Dropout, DoRA, trained biases, other precisions; and without the adapter, the base itself."""
    import torch

    for changes in ({"lora_dropout": 0.1}, {"use_dora": True}, {"bias": "all"}, {"lora_bias": True}):
        model = adapted(toy_llama, **changes)
        if "bias" in changes:
            for layer in model.modules():
                if hasattr(layer, "lora_A"):
                    layer.base_layer.bias = torch.nn.Parameter(torch.zeros(layer.base_layer.out_features))
        speed_up_lora(model)
        assert replaced(model) == 0, changes
    half = adapted(toy_llama).to(torch.bfloat16)
    speed_up_lora(half)
    assert replaced(half) == 0
    ours, base, ids = adapted(toy_llama), load(toy_llama, "sdpa"), torch.arange(7, 27)[None]
    speed_up_lora(ours)
    with torch.no_grad():
        expected, tuned = base(ids).logits, ours(ids).logits
        with ours.disable_adapter():
            assert torch.equal(ours(ids).logits, expected)
        ours.merge_adapter()
        assert torch.allclose(ours(ids).logits, tuned, atol=1e-5) and not torch.allclose(tuned, expected, atol=1e-3)
        assert torch.equal(ours.unload()(ids).logits, ours.get_base_model()(ids).logits)


def test_a_run_has_the_losses_of_peft_and_of_the_whole_loss(
    toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Update by update, held-out losses included; both ways of computing less are off in the second run."""
    toy = make_toy(tmp_path, toy_llama, base_case__dropout=0.0)
    toy.train(tmp_path / "ours")
    monkeypatch.setattr(trl_trainer, "speed_up_lora", lambda model: None)
    monkeypatch.setattr(trl_trainer, "supports_head_loss", lambda network: False)
    toy.train(tmp_path / "plain")
    losses = [[float(row["loss"]) for row in rows_of(tmp_path / name)] for name in ("ours", "plain")]
    assert len(losses[0]) > 12 and losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != losses[1]  # they differ by rounding, so they are really two ways


def test_a_run_without_dropout_killed_twice_equals_the_undisturbed_one(toy_llama: Path, tmp_path: Path) -> None:
    """Bit for bit, as with dropout in test_step_layout.py, which keeps PEFT's layers."""
    toy = make_toy(tmp_path, toy_llama, training__save_steps=3, base_case__dropout=0.0)
    import_training_libraries()
    found = certify_resume(toy.train, work=tmp_path, kills=2, seed=11, save_steps=3)
    assert found["holds"] and found["kills"] == 2 and all(found["equal"].values())
