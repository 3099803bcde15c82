"""Shapes of families that only transformers knows, against the models that it builds."""

import json
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.models.find_shape import find_shape
from loragrid.models.flops import training_per_token
from loragrid.models.meta_shape import ListedShape, listed_shape
from loragrid.models.shape import FAMILIES, read_shape
from loragrid.models.trained_weights import Trainable, trained_tensors
from loragrid.planning.memory_model import TrainingSetup, training_memory
from loragrid.study.sections import ModelEntry

SMALL = {
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
LLAMA_LIKE = "phi3 olmo2 olmo3 granite smollm3 ministral3 cohere2 glm4 exaone4".split()
MORE: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
MULTIMODAL = {"text_config": SMALL, "vision_config": VISION}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def small(kind: str) -> dict[str, Any]:
    if kind == "gemma3":
        return {"model_type": kind} | MULTIMODAL
    return {"model_type": kind} | SMALL | MORE.get(kind, {})


@pytest.mark.parametrize("kind", [*LLAMA_LIKE, *MORE, "gemma3"])
def test_a_family_is_planned_by_the_model_that_transformers_builds(kind: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from loragrid.models.target_modules import adapted_layers

    entry = ModelEntry(hub="some/model", precision="4bit", chat_template=None, shape=small(kind))
    shape = find_shape(entry, network=True)
    given = small(kind)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(given.pop("model_type"), **given))
    assert shape.parameters() == sum(parameter.numel() for parameter in model.parameters())
    for modules in ("all-linear", "attention"):
        assert [name for name, _ in shape.adapted_modules(modules)] == adapted_layers(model, modules)
    trainable = Trainable(method="lora", rank=2, target_modules="all-linear")
    sides = [sum(model.get_submodule(name).weight.shape) for name in adapted_layers(model, "all-linear")]
    assert sum(trained_tensors(shape, trainable)) == 2 * sum(sides)
    assert sum(training_per_token(shape, trainable, row_tokens=50, checkpointing=True).values()) > 0
    setup = TrainingSetup(
        precision="4bit",
        trainable=trainable,
        optimizer="adamw_8bit",
        per_device=2,
        max_length_tokens=64,
        compute_dtype="bf16",
        backend="trl",
        checkpointing=True,
    )
    assert training_memory(shape, setup).total_mib > 500


@pytest.mark.parametrize("kind", FAMILIES)
def test_known_families_are_counted_alike(kind: str) -> None:
    config = {"model_type": kind} | SMALL
    listed, read = listed_shape(config, "here", build=True), read_shape(config | _config_of(config), "here")
    assert listed.parameters() == read.parameters() and listed.linear_parameters() == read.linear_parameters()
    for name in ("hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "head_dim", "tied"):
        assert getattr(listed, name) == getattr(read, name), name
    assert listed.full_attention_layers == read.full_attention_layers
    lora = Trainable(method="lora", rank=2, target_modules="all-linear")
    for trainable in (lora, Trainable(method="ia3", rank=None, target_modules="all-linear")):
        assert trained_tensors(listed, trainable) == trained_tensors(read, trainable)
    assert training_per_token(listed, lora, row_tokens=9, checkpointing=False) == training_per_token(
        read, lora, row_tokens=9, checkpointing=False
    )


def _config_of(config: dict[str, Any]) -> dict[str, Any]:
    from transformers import AutoConfig

    given = dict(config)
    return AutoConfig.for_model(given.pop("model_type"), **given).to_dict()


def test_a_token_passes_through_its_experts_only_and_they_stay_in_16_bits() -> None:
    shape = listed_shape(small("qwen3_moe"), "here", build=True)
    experts = 4 * 4 * 3 * 24 * 16  # layers, experts, matrices
    assert shape.active_expert_parameters() == experts / 2
    assert shape.parameters() - shape.linear_parameters() > experts


def test_a_built_shape_is_kept_and_the_workflow_reads_it_without_building(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small("olmo2")
    with pytest.raises(UserError, match=r"here: the shape of a olmo2 model is not known yet\. Fix: run the plan once"):
        listed_shape(config, "here", build=False)
    built = listed_shape(config, "here", build=True)
    monkeypatch.setattr("loragrid.models.meta_shape._built", None)
    kept = listed_shape(config, "here", build=False)
    assert isinstance(kept, ListedShape) and kept == built


def test_what_cannot_be_planned_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(small("granitemoe")))
    entry = ModelEntry(path=str(tmp_path), precision="4bit", chat_template=None)
    with pytest.raises(UserError, match=r"config\.json: a granitemoe model is not planned: its experts are not linear"):
        find_shape(entry, network=True)
    for family in ("no-such-family", None):
        with pytest.raises(UserError, match=r"here: transformers cannot build a model of the family .*Fix: check"):
            listed_shape({"model_type": family}, "here", build=True)
