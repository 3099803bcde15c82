"""Merging: every method's merged weights compute what its adapter does on the base."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from loragrid.exporting.merging import merge_adapter, write_merged
from loragrid.models.adapter_files import save_trained, trained_folder
from loragrid.models.attached_adapters import attach_adapter
from loragrid.models.loading import load_base, load_stored
from loragrid.study.methods import METHODS
from loragrid.training.backends.adapters import attach
from loragrid.training.backends.recipe import make_recipe
from tests.exporting.conftest import finish_study
from tests.fixtures.train_toys import make_toy

ADAPTERS = [name for name, method in METHODS.items() if method.adapter]


def write_trained(method: str, folder: Path, model: Path, **changes: Any) -> tuple[Any, Path]:
    """The toy of a method and the folder of its adapter, whose trained weights are moved at random."""
    import torch

    absent = {"rank", "alpha", "dropout", "target_modules"} - METHODS[method].settings
    given = {f"base_case__{name}": None for name in absent} | {"base_case__method": method}
    if method == "loftq":
        given["base_case__precision"] = "4bit"
    toy = make_toy(folder, model, **given | changes)
    entry = toy.study.base_entry(toy.cell)
    torch.manual_seed(3)
    tuned = attach(load_base(entry, device="cpu"), make_recipe(toy.study, toy.cell, device="cpu"), folder=model)
    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn_like(weight)
    save_trained(tuned, folder, tokenizer=None)
    return toy, trained_folder(folder)


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(torch.arange(7, 47)[None], use_cache=False).logits.float()


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_merged_model_computes_as_the_adapter_on_its_base(method: str, toy_llama: Path, tmp_path: Path) -> None:
    import torch

    if method == "loftq" and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed: requirements-gpu.txt")
    toy, adapter = write_trained(method, tmp_path, toy_llama)
    entry = toy.study.base_entry(toy.cell)

    def base() -> Any:
        if method == "loftq":
            return load_base(entry, device="cpu").dequantize().float()
        return load_stored(toy_llama)

    before, wanted = logits(base()), logits(attach_adapter(base(), adapter))
    model = merge_adapter(base(), adapter, torch.float32)
    assert (logits(model) - wanted).abs().max() < 1e-4 < (before - wanted).abs().max()
    assert not [name for name, _ in model.named_modules() if "lora" in name or "adapter" in name]


def test_a_tied_head_gets_weights_of_its_own_when_it_is_adapted(toy_gemma: Path, tmp_path: Path) -> None:
    import torch

    _, adapter = write_trained("lora", tmp_path, toy_gemma, base_case__target_modules=["q_proj", "lm_head"])
    wanted = logits(attach_adapter(load_stored(toy_gemma), adapter))
    model = merge_adapter(load_stored(toy_gemma), adapter, torch.float32)
    assert torch.allclose(logits(model), wanted, atol=1e-4)
    model.save_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(load_stored(tmp_path / "merged")), wanted, atol=1e-4)


def test_a_run_in_16_bits_is_merged_into_the_base_as_training_rounded_it(toy_llama: Path, tmp_path: Path) -> None:
    """The base is stored in float32: its own weights are not those that the adapter was trained on."""
    import torch
    from safetensors.torch import load_file

    finished = finish_study(
        tmp_path, toy_llama, base_case={"precision": "16bit", "backend": "trl"}, grid={"axes": {"method": ["lora"]}}
    )
    facts = write_merged(finished.run(), tmp_path / "merged", "float32")
    assert facts.merged_into == "the base in bfloat16, as it was trained on"
    name = "model.embed_tokens.weight"  # without an adapter
    stored, found = (load_file(folder / "model.safetensors")[name] for folder in (toy_llama, tmp_path / "merged"))
    assert torch.equal(found, stored.bfloat16().float()) and not torch.equal(found, stored)
