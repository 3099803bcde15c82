"""Adapters from elsewhere that fit their base: every kind, on several families, by files and as loaded."""

from pathlib import Path
from typing import Any

import pytest
from peft import IA3Config, LoraConfig, VeraConfig

from loragrid.errors import UserError
from loragrid.models.adapter_shapes import base_shapes, loaded_shapes, tensor_shapes
from loragrid.models.adopted_adapters import base_note, check_adapter_folder
from loragrid.study.sections import ModelEntry
from tests.fixtures.score_toys import write_peft

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
