"""Counts from a model's configuration, against the models that transformers and PEFT build from it."""

import json
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.models.find_shape import find_shape
from loragrid.models.shape import FAMILIES, read_shape
from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import load_study

SMALL = {
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
}


def build(kind: str, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """A model of that family with random weights, and its configuration as config.json would hold it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **(SMALL | changes))
    return AutoModelForCausalLM.from_config(config), config.to_dict()


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_model(kind: str, tied: bool) -> None:
    model, config = build(kind, tie_word_embeddings=tied)
    assert read_shape(config, "here").parameters() == sum(p.numel() for p in model.parameters())


def test_biases_count() -> None:
    model, config = build("llama", attention_bias=True, mlp_bias=True)
    assert read_shape(config, "here").parameters() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "qwen2"])
@pytest.mark.parametrize(
    "modules",
    ["all-linear", ["q_proj", "v_proj"], ["mlp.down_proj"], ["model.layers.3.self_attn.k_proj"], ["lm_head", "o_proj"]],
)
@pytest.mark.parametrize("rank", [1, 8])
def test_trained_parameters_are_those_of_peft(kind: str, modules: str | list[str], rank: int) -> None:
    from peft import LoraConfig, get_peft_model

    model, config = build(kind, tie_word_embeddings=False)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=rank, target_modules=modules, bias="none"))
    sizes = read_shape(config, "here").adapted_matrices(modules)
    tensors = [rank * side for size in sizes for side in size]
    assert sorted(tensors) == sorted(p.numel() for p in tuned.parameters() if p.requires_grad)


@pytest.mark.parametrize("fixture", ["toy_llama", "toy_gemma"])
def test_the_shape_of_a_local_folder(fixture: str, request: pytest.FixtureRequest) -> None:
    from safetensors import safe_open

    folder = request.getfixturevalue(fixture)
    with safe_open(folder / "model.safetensors", "np") as weights:
        stored = sum(weights.get_tensor(name).size for name in weights.keys())
    assert find_shape(ModelEntry(path=str(folder), precision="32bit", chat_template=None)).parameters() == stored


def test_the_studys_models_have_the_counts_that_public_runs_print() -> None:
    """unsloth prints the trained parameters at rank 16 on every linear map: 11,272,192 for 1B and 24,313,856 for 3B."""
    models = load_study("t4").models
    shapes = {key: find_shape(entry) for key, entry in models.items()}
    assert {key: shape.parameters() for key, shape in shapes.items()} == {
        "llama-1b": 1_235_814_400,
        "llama-3b": 3_212_749_824,
        "gemma-270m": 268_098_176,
    }
    trained = {key: sum(16 * sum(size) for size in s.adapted_matrices("all-linear")) for key, s in shapes.items()}
    assert trained["llama-1b"] == 11_272_192 and trained["llama-3b"] == 24_313_856


def test_sliding_windows_are_found_as_transformers_finds_them() -> None:
    for kind in ("gemma2", "gemma3_text"):
        _, config = build(kind)
        full = config["layer_types"].count("full_attention")
        assert read_shape(config, "here").full_attention_layers == full
        del config["layer_types"]
        config.pop("_sliding_window_pattern", None)
        assert read_shape(config, "here").full_attention_layers == full
    _, config = build("qwen3")
    assert read_shape(config, "here").full_attention_layers == 7


def test_an_unusable_shape_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_type 'mamba' is not supported by the plan\. Fix: use one of llama"):
        read_shape(SMALL | {"model_type": "mamba"}, "here")
    with pytest.raises(UserError, match="here: key 'vocab_size' is missing"):
        read_shape(
            {key: value for key, value in SMALL.items() if key != "vocab_size"} | {"model_type": "llama"}, "here"
        )
    for size, problem in (
        (None, "a size is not a number"),
        (-1, "layers is not between 1 and"),
        (10**9, "layers is not"),
    ):
        with pytest.raises(UserError, match=f"^here: {problem} .*Fix: give "):
            read_shape(SMALL | {"model_type": "llama", "num_hidden_layers": size}, "here")
    with pytest.raises(UserError, match=r"^here: vocab_size is not between 1 and 10,000,000 \(0\)"):
        read_shape(SMALL | {"model_type": "llama", "vocab_size": 0}, "here")
    with pytest.raises(UserError, match=r"no module 'q_prj'\. Fix: choose from q_proj"):
        read_shape(SMALL | {"model_type": "llama"}, "here").adapted_matrices(["v_proj", "q_prj"])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match=r"config\.json: key"):
        find_shape(ModelEntry(path=str(tmp_path), precision="32bit", chat_template=None))
    unknown = ModelEntry(hub="nobody/nothing", revision="main", precision="4bit", chat_template=None)
    assert find_shape(unknown) is None
    with pytest.raises(UserError, match=r"nobody/nothing: config\.json cannot be downloaded from the hub"):
        find_shape(unknown, network=True)
