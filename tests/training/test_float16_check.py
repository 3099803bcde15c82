"""A run in float16 whose activations leave its range ends in one line, in the first updates."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from loragrid.errors import UserError
from loragrid.models.float16_range import LIMIT
from loragrid.study.sections import ModelEntry
from loragrid.training.float16_check import CHECKED_UPDATES, Float16Check
from loragrid.training.trainer_hooks import TrainerHooks


@pytest.fixture
def model(toy_llama: Path):
    """A toy Llama in float16, which a CPU can run forward."""
    import torch

    from loragrid.models.loading import load_base

    entry = ModelEntry(path=str(toy_llama), precision="32bit", chat_template=None)
    return load_base(entry, device="cpu").to(torch.float16)


def run(model) -> float:
    import torch

    ids = torch.tensor([[1, 9, 40, 77, 12]])
    with torch.no_grad():
        return float(model(ids, labels=ids, use_cache=False).loss)


def test_a_model_within_the_range_is_trained_and_no_longer_watched(model) -> None:
    check = Float16Check(model, model_type="llama")
    for step in range(CHECKED_UPDATES + 1):
        check.verify(step=step, loss=run(model))
    assert not check._hooks and not any(layer._forward_hooks for layer in model.model.layers)
    # A run that diverges later has its own record.
    check.verify(step=CHECKED_UPDATES + 1, loss=math.nan)


@pytest.mark.parametrize("value", [math.inf, math.nan, LIMIT])
def test_an_overflow_names_the_layer_the_fix_and_who_reported_it(model, value: float) -> None:
    """Beyond the largest number, or at it, where some kernels stop."""
    import torch

    mlp, overflown = model.model.layers[0].mlp, torch.full((1, 5, 32), value, dtype=torch.float16)
    mlp.register_forward_hook(lambda *_: overflown)
    found = "layer 1 reached (inf|nan)"
    check = Float16Check(model, model_type="qwen2")
    loss = run(model)
    line = (
        rf"fp16 cannot hold the numbers of this qwen2 \({found} at update 2; .*QwenLM.*Fix: set compute_dtype to fp32"
    )
    with pytest.raises(UserError, match=line) as raised:
        check.verify(step=2, loss=loss)
    assert "\n" not in str(raised.value)


def test_the_base_s_own_loss_counts_and_a_later_one_does_not(model) -> None:
    for step in (0, 1):
        with pytest.raises(UserError, match=f"the loss is nan at update {step}"):
            Float16Check(model, model_type="llama").verify(step=step, loss=math.nan)
    # By then a learning rate can be the reason: that run has diverged.
    Float16Check(model, model_type="llama").verify(step=2, loss=math.nan)


def test_the_trainer_asks_before_it_records_an_update() -> None:
    class Refused(Exception):
        pass

    def verify(**_: object) -> None:
        raise Refused

    trainer = TrainerHooks()
    trainer.state = SimpleNamespace(global_step=1)
    trainer.progress = SimpleNamespace()
    trainer.float16_check = SimpleNamespace(verify=verify)
    with pytest.raises(Refused):
        trainer.log({"loss": math.nan, "learning_rate": 0.1})
