"""Layers that get an adapter, on models that transformers builds: the language model's, and no routers."""

from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.models.target_modules import adapted_layers, feed_forward_layers
from tests.models.test_shape import build

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


def short(layers: list[str]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[2] for name in layers))


@pytest.fixture(scope="module")
def multimodal() -> Any:
    """A Gemma 3 with a vision tower, whose layers have the names of the language model's."""
    from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3TextConfig

    text = Gemma3TextConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    return AutoModelForCausalLM.from_config(
        Gemma3Config(text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4)
    )


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "qwen3"])
def test_groups(kind: str) -> None:
    model, _ = build(kind)
    assert short(adapted_layers(model, "attention")) == ATTENTION
    assert short(adapted_layers(model, "mlp")) == MLP
    assert len(adapted_layers(model, "all-linear")) == 7 * 7
    assert short(feed_forward_layers(model, adapted_layers(model, "all-linear"))) == ["down_proj"]


@pytest.mark.parametrize("target_modules", ["all-linear", "attention", "mlp", ["q_proj", "v_proj"], ["o_proj"]])
def test_of_a_multimodal_model_only_the_language_model(multimodal: Any, target_modules: Any) -> None:
    layers = adapted_layers(multimodal, target_modules)
    assert layers and all(name.startswith("model.language_model.layers.") for name in layers)


@pytest.mark.parametrize("target_modules", ["all-linear", ["q_proj", "v_proj"]])
def test_peft_adapts_exactly_these_layers(multimodal: Any, target_modules: Any) -> None:
    """Also after it has shortened their names, which the vision tower shares."""
    import copy

    from peft import LoraConfig, get_peft_model

    layers = adapted_layers(multimodal, target_modules)
    tuned = get_peft_model(copy.deepcopy(multimodal), LoraConfig(task_type="CAUSAL_LM", target_modules=layers))
    adapted = [name for name, module in tuned.get_base_model().named_modules() if hasattr(module, "lora_A")]
    assert adapted == layers


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral", "granitemoe", "afmoe"])
def test_routers_are_not_adapted(kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 16, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 100}
    sizes |= {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
    layers = adapted_layers(model, "all-linear")
    assert set(ATTENTION) <= set(short(layers))
    assert not [name for name in layers if "router" in name or name.endswith(".gate")]
    assert set(short(adapted_layers(model, "attention"))) >= set(ATTENTION)


def test_the_head_and_the_embedding_by_name_only() -> None:
    model, _ = build("llama", tie_word_embeddings=False)
    assert "lm_head" not in adapted_layers(model, "all-linear")
    assert adapted_layers(model, ["lm_head", "embed_tokens"]) == ["model.embed_tokens", "lm_head"]
    assert adapted_layers(model, ["model.layers.3.self_attn.k_proj"]) == ["model.layers.3.self_attn.k_proj"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    model, _ = build("llama")
    for name in ("W_pack", "self_attn", "roj"):
        with pytest.raises(UserError, match=rf"no layer '{name}'\. Fix: choose from down_proj, .*, or use all-linear"):
            adapted_layers(model, ["q_proj", name])


def test_a_model_without_a_group() -> None:
    """The experts of this one are no linear layers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("mixtral", vocab_size=100, **sizes))
    with pytest.raises(UserError, match=r"no linear layer of the group mlp\. Fix: choose from k_proj, o_proj"):
        adapted_layers(model, "mlp")
