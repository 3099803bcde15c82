"""Backends: which one is chosen, what it needs, and what it does to a base."""

from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.study.sections import ModelEntry
from loragrid.training.backends.factory import choose_backend
from loragrid.training.backends.recipe import make_recipe, resolve_dtype
from tests.fixtures.train_toys import Toy, make_toy


def test_gradients_flow_through_a_4_bit_base_after_a_measurement(
    toy_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On some CPUs bitsandbytes packs layers in a forward pass without gradients, and blocks later ones."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    import torch
    from peft import LoraConfig, get_peft_model

    from loragrid.models.loading import load_base

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)  # as on such a CPU, whatever is here
    base = load_base(ModelEntry(path=str(toy_llama), precision="4bit", chat_template=None), device="cpu")
    packs = [layer.support_avx512bf16_for_cpu for layer in base.modules() if "4bit" in type(layer).__name__]
    assert packs and not any(packs)

    rows = torch.randint(7, 263, (2, 12))
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        model.eval()(rows)
    model.train()(rows, labels=rows).loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if "layers.0" in name and "lora_B" in name}
    assert gradients and all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values())


def test_a_released_base_is_unchanged(toy: Toy) -> None:
    """For a search on one loaded base: equal seeds draw equal adapters, and the base keeps every bit."""
    import torch

    backend, recipe = (
        choose_backend("trl", device="cpu"),
        make_recipe(toy.study, toy.cell, device="cpu"),
    )
    base = backend.load(toy.study.base_entry(toy.cell), recipe=recipe)
    before = {name: value.clone() for name, value in base.model.state_dict().items()}

    def adapters(model: Any) -> dict[str, Any]:
        return {name: value.detach().clone() for name, value in model.named_parameters() if "lora_" in name}

    first = backend.adapt(base, recipe=recipe)
    drawn = adapters(first)
    with torch.no_grad():
        for name, value in first.named_parameters():
            if "lora_" in name:
                value.add_(1.0)
    base = backend.release(base, first)
    assert before.keys() == base.model.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in base.model.state_dict().items())
    again = adapters(backend.adapt(base, recipe=recipe))
    assert drawn.keys() == again.keys() and all(torch.equal(drawn[name], again[name]) for name in drawn)


def test_missing_library_is_one_line_and_never_a_fallback(toy_llama: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("loragrid.runtime.optional_packages.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        choose_backend("unsloth", device="cpu")
    with pytest.raises(UserError, match="pip install"):
        choose_backend("auto", device="cuda")
    assert choose_backend("auto", device="cpu").name == "trl"
    toy = make_toy(tmp_path, toy_llama, base_case__optimizer="adamw_8bit")
    with pytest.raises(UserError, match="bitsandbytes"):
        make_recipe(toy.study, toy.cell, device="cpu")
    toy = make_toy(tmp_path, toy_llama, training__report_to="wandb")
    with pytest.raises(UserError, match="Fix: pip install wandb, or set it to none"):
        make_recipe(toy.study, toy.cell, device="cpu")


def test_unknown_target_modules_are_refused_with_the_known_ones(toy_llama: Path, tmp_path: Path) -> None:
    toy = make_toy(tmp_path, toy_llama, base_case__target_modules=["q_proj", "W_pack"])
    with pytest.raises(
        UserError,
        match=r"no layer 'W_pack'\. Fix: choose from down_proj, .*, v_proj, or use all-linear",
    ):
        toy.train(tmp_path / "run")
    toy = make_toy(tmp_path, toy_llama, base_case__target_modules=["self_attn"])  # no layer of its own
    with pytest.raises(UserError, match="no layer 'self_attn'"):
        toy.train(tmp_path / "run")


def test_compute_dtype() -> None:
    assert resolve_dtype("auto", device="cpu") == "fp32" and resolve_dtype("bf16", device="cpu") == "bf16"
    with pytest.raises(UserError, match="fp16"):
        resolve_dtype("fp16", device="cpu")
