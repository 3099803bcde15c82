"""What each method trains, against the models that PEFT builds."""

from typing import Any

import pytest

from loragrid.models.shape import read_shape
from loragrid.models.trained_weights import Trainable, added_frozen, loaded_parameters, trained_tensors
from loragrid.study.methods import METHODS
from tests.models.test_shape import build

RANK = 4
NAMES = {"all-linear": "all-linear", "attention": ["q_proj", "k_proj", "v_proj", "o_proj"]}


def peft_config(method: str, modules: str | list[str]) -> Any:
    from peft import IA3Config, LoraConfig, VeraConfig

    common = {"task_type": "CAUSAL_LM", "target_modules": modules}
    if method == "ia3":
        every = [*NAMES["attention"], "gate_proj", "up_proj", "down_proj"]
        names = every if modules == "all-linear" else modules
        return IA3Config(**common | {"target_modules": names}, feedforward_modules=sorted({"down_proj"} & set(names)))
    if method == "vera":
        return VeraConfig(**common, r=RANK)
    start = method if method in ("pissa", "olora") else True
    return LoraConfig(**common, r=RANK, use_dora=method == "dora", init_lora_weights=start)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
@pytest.mark.parametrize("modules", NAMES)
@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].adapter])
def test_an_adapters_trained_parameters_are_those_of_peft(method: str, modules: str, kind: str) -> None:
    from peft import get_peft_model

    model, config = build(kind)
    tuned = get_peft_model(model, peft_config(method, NAMES[modules]))
    trainable = Trainable(method=method, rank=None if method == "ia3" else RANK, target_modules=modules)
    found = sorted(trained_tensors(read_shape(config, "here"), trainable))
    assert found == sorted(tensor.numel() for tensor in tuned.parameters() if tensor.requires_grad)
    assert added_frozen(read_shape(config, "here"), trainable) == shared_numbers(tuned)


def shared_numbers(tuned: Any) -> int:
    """Numbers in VeRA's two matrices, which every layer refers to; 0 for other methods."""
    found = {}
    for module in tuned.modules():
        for name in ("vera_A", "vera_B"):
            found |= {id(tensor): tensor.numel() for tensor in (getattr(module, name, None) or {}).values()}
    return sum(found.values())


@pytest.mark.parametrize("tied", [True, False])
def test_full_trains_every_weight(tied: bool) -> None:
    model, config = build("qwen2", tie_word_embeddings=tied)
    trainable = Trainable(method="full", rank=None, target_modules=None)
    shape = read_shape(config, "here")
    assert sum(trained_tensors(shape, trainable)) == sum(tensor.numel() for tensor in model.parameters())
    assert loaded_parameters(shape, trainable) == 0


def test_pissa_and_olora_are_saved_as_adapters_of_twice_the_rank() -> None:
    _, config = build("llama")
    shape = read_shape(config, "here")
    lora, pissa, olora = (
        Trainable(method=method, rank=RANK, target_modules="all-linear") for method in ("lora", "pissa", "olora")
    )
    assert loaded_parameters(shape, pissa) == loaded_parameters(shape, olora) == 2 * loaded_parameters(shape, lora)
