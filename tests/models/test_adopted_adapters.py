"""Adapters from elsewhere that fit their base: every kind, on several families, by files and as loaded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import IA3Config, LoraConfig, VeraConfig
from safetensors.numpy import save_file

from loragrid.errors import UserError
from loragrid.models.adapter_shapes import base_shapes, loaded_shapes, tensor_shapes
from loragrid.models.adopted_adapters import base_note, check_adapter_folder, check_local_adapters
from loragrid.study.adopted import ADAPTER_FILES
from loragrid.study.sections import ModelEntry
from tests.fixtures.score_toys import write_peft
from tests.fixtures.studies import toy_study

COMMON = {"task_type": "CAUSAL_LM"}
KINDS = {
    "lora": LoraConfig(r=4, target_modules="all-linear", **COMMON),
    "patterns": LoraConfig(r=4, target_modules=["q_proj", "o_proj"], rank_pattern={"o_proj": 2}, **COMMON),
    "expression": LoraConfig(r=4, target_modules=r".*\.layers\.0\.self_attn\.[qv]_proj", **COMMON),
    "dora": LoraConfig(r=4, use_dora=True, target_modules=["q_proj", "down_proj"], **COMMON),
    "vera": VeraConfig(r=4, target_modules=["q_proj", "down_proj"], **COMMON),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **COMMON),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["toy_llama", "toy_gemma"])
def test_an_adapter_fits_the_base_that_it_was_made_for(
    kind: str, family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(family)
    folder = write_peft(model, tmp_path / "theirs", KINDS[kind], seed=1)
    for shapes in (None, base_shapes(model), loaded_shapes(model)):
        config = check_adapter_folder(folder, "adopt.theirs", shapes)
    assert config["peft_type"] in ("LORA", "VERA", "IA3")


def test_shapes_are_those_of_the_weights(toy_llama: Path) -> None:
    from safetensors.torch import load_file

    file = toy_llama / "model.safetensors"
    assert tensor_shapes(file) == {name: tuple(weight.shape) for name, weight in load_file(file).items()}
    assert base_shapes(toy_llama).items() <= loaded_shapes(toy_llama).items()


@pytest.mark.parametrize("kind", ["lora", "dora", "vera", "ia3"])
def test_an_adapter_of_another_base_does_not_fit(kind: str, toy_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(toy_llama)
    config.intermediate_size += 8
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wider")
    folder = write_peft(toy_llama, tmp_path / "theirs", KINDS[kind], seed=1)
    with pytest.raises(
        UserError, match=r"down_proj is .* which does not fit the base's|up_proj is .* does not fit|vera_A"
    ):
        check_adapter_folder(folder, "adopt.theirs", base_shapes(tmp_path / "wider"))


LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
PAIR = {f"{LAYER}.lora_A.weight": (4, 32), f"{LAYER}.lora_B.weight": (32, 4)}
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


def write(folder: Path, config: Any, tensors: dict[str, tuple[int, ...]]) -> Path:
    folder.mkdir()
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "adapter_config.json").write_text(text)
    save_file({name: np.zeros(shape, np.float32) for name, shape in tensors.items()}, folder / ADAPTER_FILES[1])
    return folder


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        (CONFIG, {}, "no weights of an adapter in adapter_model.safetensors"),
        (CONFIG, dict([*PAIR.items()][:1]), "lora_A of .*q_proj without its lora_B"),
        (CONFIG, dict([*PAIR.items()][1:]), "lora_B of .*q_proj without its lora_A"),
        (
            CONFIG,
            {name.replace(".weight", ".default.weight"): s for name, s in PAIR.items()},
            "that PEFT does not read",
        ),
        (CONFIG, {name.removeprefix("base_model.model."): s for name, s in PAIR.items()}, "that PEFT does not read"),
        (CONFIG | {"target_modules": ["q_proj", "v_proj"]}, PAIR, "no weights for its target module v_proj"),
        (CONFIG | {"use_dora": True}, PAIR, "no lora_magnitude_vector, but use_dora"),
        (CONFIG | {"target_modules": 5}, PAIR, "target_modules in adapter_config.json is 5"),
        (CONFIG | {"modules_to_save": 5}, PAIR, "modules_to_save in adapter_config.json is 5"),
        (CONFIG | {"r": "4"}, PAIR, "r in adapter_config.json is '4'"),
        (CONFIG | {"lora_alpha": "x"}, PAIR, "lora_alpha in adapter_config.json is 'x'"),
        ("{", PAIR, r"adapter_config\.json: cannot be read as JSON .* Fix: copy it again"),
        ("[1]", PAIR, r"adapter_config\.json: not a map of keys to values"),
    ],
)
def test_an_adapter_that_would_leave_its_base_as_it_is_is_refused(
    config: Any, tensors: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    """PEFT warns about missing weights, and starts their layers at no effect."""
    layer = LAYER.removeprefix("base_model.model.")
    base = {f"{layer}.weight": (32, 32), f"{layer.replace('q_proj', 'v_proj')}.weight": (32, 32)}
    # Some adapters list the layers of several families.
    good = CONFIG | {"target_modules": ["q_proj", "qkv_proj"]}
    assert check_adapter_folder(write(tmp_path / "good", good, PAIR), "adopt.theirs", base) == good
    with pytest.raises(UserError, match=message) as caught:
        check_adapter_folder(write(tmp_path / "bad", config, tensors), "adopt.theirs", base)
    assert "\n" not in str(caught.value) and ". Fix: " in str(caught.value)


@pytest.mark.parametrize("family", ["toy_llama", "toy_gemma"])
def test_an_adapted_output_head_fits_unless_its_own_weights_are_there_too(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(family)
    config = LoraConfig(r=4, target_modules=["lm_head", "q_proj"], **COMMON)
    folder = write_peft(model, tmp_path / "head", config, seed=1, save_embedding_layers=False)
    for shapes in (base_shapes(model), loaded_shapes(model)):
        check_adapter_folder(folder, "adopt.theirs", shapes)
    whole = write_peft(model, tmp_path / "whole", config, seed=1)
    with pytest.raises(UserError, match="an adapter with new vocabulary"):
        check_adapter_folder(whole, "adopt.theirs", None)


@pytest.mark.parametrize(
    ("named", "hub", "note"),
    [
        ("owner/Llama-1B-Instruct", "mirror/llama-1b-instruct", None),
        ("unsloth/llama-1b-instruct-unsloth-bnb-4bit", "mirror/Llama-1B-Instruct", None),
        ("/somewhere/Llama-1B-Instruct/", "mirror/Llama-1B-Instruct", None),
        (None, "mirror/Llama-1B-Instruct", None),
        ("owner/Llama-1B", "mirror/Llama-1B-Instruct", "its configuration names the base Llama-1B"),
    ],
)
def test_a_note_names_another_base(named: Any, hub: str, note: str | None) -> None:
    entry = ModelEntry(chat_template=None, hub=hub, revision="main")
    assert base_note({"base_model_name_or_path": named}, entry) == note


def test_one_adapter_under_two_names_is_refused(toy_llama: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("copy", 1), ("other", 2)):
        write_peft(toy_llama, tmp_path / name, KINDS["lora"], seed=seed)
    entries = {name: {"path": str(tmp_path / name), "model": "toy"} for name in ("one", "other", "copy")}
    check_local_adapters(toy_study({"toy": toy_llama}, adopt={name: entries[name] for name in ("one", "other")}))
    with pytest.raises(UserError, match=r"adopt\.copy: the same adapter as adopt\.one, byte by byte"):
        check_local_adapters(toy_study({"toy": toy_llama}, adopt=entries))
