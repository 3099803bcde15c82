"""Every training method: trains, resumes bitwise, and its saved weights are what was trained."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Paused, UserError
from loragrid.models.adapter_files import trained_folder, trained_sha256
from loragrid.models.loading import load_base
from loragrid.study.methods import METHODS
from loragrid.training.backends.factory import choose_backend
from loragrid.training.backends.recipe import make_recipe
from tests.fixtures.run_faults import assert_equal, stop_at
from tests.fixtures.train_toys import Toy, make_toy

NAMES = [name for name in METHODS if name != "none"]
# A plain adapter, one that is converted when it is saved, and a whole model are stopped after every
# update; checkpoints of the others differ from a plain adapter's in their tensors only.
STOPS = dict.fromkeys(("lora", "pissa", "full"), (1, 2, 3))
NEEDS_4BIT = {"loftq": {"base_case__precision": "4bit"}}


def toy_of(method: str, folder: Path, model: Path, **changes: Any) -> Toy:
    """A toy run of three updates by that method, without the settings that it does not have."""
    if NEEDS_4BIT.get(method) and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed: requirements-gpu.txt")
    absent = {"rank", "alpha", "dropout", "target_modules"} - METHODS[method].settings
    given = {f"base_case__{name}": None for name in absent}
    given |= {"base_case__method": method, "base_case__budget": {"steps": 3}, "base_case__evaluations": 1}
    return make_toy(folder, model, **given | NEEDS_4BIT.get(method, {}) | changes)


def logits(model: Any) -> Any:
    import torch

    rows = torch.arange(7, 47)[None]
    with torch.no_grad():
        return model.eval()(rows, use_cache=False).logits


def load_trained(toy: Toy, run_folder: Path) -> Any:
    """The saved weights as a reader loads them: an adapter on a fresh base, or a model alone."""
    folder = trained_folder(run_folder)
    if folder.name == "model":
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder)
    from peft import PeftModel

    return PeftModel.from_pretrained(fresh_base(toy), folder)


def fresh_base(toy: Toy) -> Any:
    """The base as training loads it."""
    recipe = make_recipe(toy.study, toy.cell, device="cpu")
    return choose_backend("trl", device="cpu").load(toy.study.base_entry(toy.cell), recipe=recipe).model


@pytest.fixture
def trained_models(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trained model of each finished run, last one last."""
    import train

    models, save = [], train.save_trained

    def and_keep(model: Any, *arguments: Any, **named: Any) -> Path:
        models.append(model)
        return save(model, *arguments, **named)

    monkeypatch.setattr(train, "save_trained", and_keep)
    return models


@pytest.mark.parametrize("method", NAMES)
def test_method(
    method: str, toy_llama: Path, tmp_path: Path, trained_models: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved weights give the trained logits; stopped after an update, the resumed run has their bytes."""
    import torch

    toy = toy_of(method, tmp_path, toy_llama, scoring__at=[0.5, 1.0])
    record = toy.train(tmp_path / "reference")
    assert (record.status, record.method, record.kept_at) == ("finished", method, (0.5,))
    assert 0 < record.trainable_parameters <= record.total_parameters
    assert record.weights_sha256 == trained_sha256(trained_folder(tmp_path / "reference"))

    base = logits(fresh_base(toy))
    expected, found = logits(trained_models[0]), logits(load_trained(toy, tmp_path / "reference"))
    # The converted adapters of pissa and olora add what was taken from the base, up to rounding.
    assert torch.allclose(found, expected, rtol=0, atol=2e-5) and (expected - base).abs().max() > 5e-4

    stops = STOPS.get(method, (2,))
    for step in stops:
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            with pytest.raises(Paused):
                toy.train(tmp_path / "run")
    resumed = toy.train(tmp_path / "run")
    assert [session.start_step for session in resumed.sessions] == [0, *stops]
    assert_equal(tmp_path / "run", tmp_path / "reference")


@pytest.mark.parametrize("method", NAMES)
def test_a_released_base_is_unchanged(method: str, toy_llama: Path, tmp_path: Path) -> None:
    """For a search on one loaded base: every trial starts from the same weights, whatever the last one did."""
    import torch

    toy = toy_of(method, tmp_path, toy_llama)
    backend, recipe = choose_backend("trl", device="cpu"), make_recipe(toy.study, toy.cell, device="cpu")
    base = backend.load(toy.study.base_entry(toy.cell), recipe=recipe)
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    fresh = []
    for _ in range(2):
        model = backend.adapt(base, recipe=recipe)
        fresh.append({name: value.detach().clone() for name, value in model.named_parameters()})
        for value in model.parameters():
            if value.requires_grad:
                value.data.add_(1.0)
        base = backend.release(base, model)
        if base.model is not None:
            after = base.model.state_dict()
            assert before.keys() == after.keys()
            assert all(torch.equal(before[name], value) for name, value in after.items())
    assert fresh[0].keys() == fresh[1].keys()
    assert all(torch.equal(fresh[0][name], fresh[1][name]) for name in fresh[0])


def test_a_whole_model_is_a_complete_folder(toy_llama: Path, tmp_path: Path) -> None:
    """Any program that reads Hugging Face folders can use it, and nothing in it names a place on this machine."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    toy_of("full", tmp_path, toy_llama).train(tmp_path / "run")
    folder = tmp_path / "run" / "model"
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(
        path.name for path in folder.iterdir()
    )
    assert AutoTokenizer.from_pretrained(folder).chat_template and AutoModelForCausalLM.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["use_cache"] is True and str(tmp_path) not in (folder / "config.json").read_text()
    assert str(toy_llama) not in (folder / "config.json").read_text()
    assert (folder / "model.safetensors").stat().st_mode & 0o044


def test_a_checkpoint_of_a_whole_model_that_misses_weights_is_not_resumed(
    toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = toy_of("full", tmp_path, toy_llama)
    for step in (1, 2):
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            with pytest.raises(Paused):
                toy.train(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "checkpoint-2" / "model.safetensors").write_bytes(b"")
    assert [session.start_step for session in toy.train(tmp_path / "run").sessions] == [0, 1, 1]


def test_all_weights_of_a_16_bit_base_are_trained_in_float32(toy_llama: Path, tmp_path: Path) -> None:
    """In bfloat16 small updates would be lost."""
    from safetensors.torch import load_file

    record = toy_of("full", tmp_path, toy_llama, base_case__precision="16bit").train(tmp_path / "run")
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert {str(value.dtype) for value in weights.values()} == {"torch.float32"}
    assert "bfloat16 weights were trained and saved in float32" in record.notes[0]


def test_pissa_on_a_16_bit_base_says_what_it_rounded(toy_llama: Path, tmp_path: Path) -> None:
    record = toy_of("pissa", tmp_path, toy_llama, base_case__precision="16bit").train(tmp_path / "run")
    assert "pissa rounded the rest of the base's weights to bfloat16" in record.notes[0]


@pytest.mark.parametrize("method", ["pissa", "olora"])
def test_the_saved_adapter_is_a_plain_lora_of_twice_the_rank(method: str, toy_llama: Path, tmp_path: Path) -> None:
    toy_of(method, tmp_path, toy_llama).train(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert (config["init_lora_weights"], config["r"], config["lora_alpha"]) == (True, 8, 8)


@pytest.mark.parametrize("method", ["pissa", "olora", "loftq"])
def test_a_rank_above_the_smaller_side_is_refused(method: str, toy_llama: Path, tmp_path: Path) -> None:
    toy = toy_of(method, tmp_path, toy_llama, base_case__rank=17)
    with pytest.raises(UserError, match=r"_proj has 16 .* Fix: lower the rank to 16"):
        toy.train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_layer_that_a_method_cannot_adapt_is_refused(toy_llama: Path, tmp_path: Path) -> None:
    toy = toy_of("miss", tmp_path, toy_llama, base_case__target_modules=["embed_tokens"])
    with pytest.raises(
        UserError, match=r"method miss: not for this model \(Target module Embedding.* Fix: use another m"
    ):
        toy.train(tmp_path / "run")


def test_loftq_starts_closer_to_the_full_weights(toy_llama: Path, tmp_path: Path) -> None:
    """Whatever alpha is."""
    for alpha in ("rank", "2 * rank"):
        toy = toy_of("loftq", tmp_path, toy_llama, base_case__rank=16, base_case__alpha=alpha)
        backend, recipe = choose_backend("trl", device="cpu"), make_recipe(toy.study, toy.cell, device="cpu")
        entry = toy.study.base_entry(toy.cell)
        base = backend.load(entry, recipe=recipe)
        full = logits(load_base(type(entry)(path=str(toy_llama), chat_template=None, precision="32bit"), device="cpu"))
        quantized = logits(base.model)
        started = logits(backend.adapt(base, recipe=recipe))
        assert (started - full).abs().mean() < 0.75 * (quantized - full).abs().mean()


def test_lora_plus_trains_b_faster(toy_llama: Path, tmp_path: Path) -> None:
    """Its ratio, weight decay and optimizer reach the groups of parameters."""
    from loragrid.data.training_data import load_training_data

    toy = toy_of("lora_plus", tmp_path, toy_llama, base_case__learning_rate_ratio=4, base_case__weight_decay=0.1)
    backend, recipe = choose_backend("trl", device="cpu"), make_recipe(toy.study, toy.cell, device="cpu")
    base = backend.load(toy.study.base_entry(toy.cell), recipe=recipe)
    model = backend.adapt(base, recipe=recipe)
    rows = load_training_data(toy.data)
    trainer = backend.trainer(model, base=base, recipe=recipe, data=rows, folder=tmp_path / "run")
    rates = {}
    for group in trainer.create_optimizer().param_groups:
        for parameter in group["params"]:
            rates[id(parameter)] = (group["lr"], group["weight_decay"])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)] == (0.04 if "lora_B" in name else 0.01, 0.1)


@pytest.mark.parametrize("optimizer", ["sgd", "adafactor", "adamw_8bit"])
def test_lora_plus_with_other_optimizers(optimizer: str, toy_llama: Path, tmp_path: Path) -> None:
    if "8bit" in optimizer and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed: requirements-gpu.txt")
    toy = toy_of("lora_plus", tmp_path, toy_llama, base_case__optimizer=optimizer)
    assert toy.train(tmp_path / "run").status == "finished"


def test_auto_takes_unsloth_only_for_methods_that_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loragrid.runtime.optional_packages.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs unsloth"):
        choose_backend("auto", device="cuda", method="rslora")
    assert choose_backend("auto", device="cuda", method="dora").name == "trl"
