"""What each method trains, against the models that PEFT builds."""

from typing import Any

import pytest

from loragrid.models.shape import read_shape
from loragrid.models.target_modules import adapted_layers
from loragrid.models.trained_weights import Trainable, added_frozen, loaded_parameters, trained_tensors
from loragrid.study.methods import METHODS
from loragrid.training.backends.adapters import peft_config
from loragrid.training.backends.recipe import Recipe
from tests.models.test_shape import build

RANK = 4
ADAPTERS = [name for name in METHODS if METHODS[name].adapter]
# The smallest sizes of the toys have no more than 16 inputs or outputs.
CASES = [
    *((method, "llama", "all-linear") for method in ADAPTERS),
    *((method, "gemma3_text", "attention") for method in ("lora", "ia3", "vera", "randlora")),
    ("ia3", "llama", "mlp"),
]


@pytest.mark.parametrize(("method", "kind", "modules"), CASES)
def test_an_adapters_parameters_are_those_of_peft(method: str, kind: str, modules: str) -> None:
    from peft import get_peft_model

    model, config = build(kind)
    rank = None if method == "ia3" else RANK
    given = {"method": method, "rank": rank, "alpha": RANK, "dropout": 0.0, "seed": 7}
    recipe = Recipe(**dict.fromkeys(Recipe.__dataclass_fields__) | given)
    before = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    tuned = get_peft_model(model, peft_config(model, recipe, adapted_layers(model, modules)))
    trainable, shape = Trainable(method=method, rank=rank, target_modules=modules), read_shape(config, "here")
    trained = [tensor.numel() for tensor in tuned.parameters() if tensor.requires_grad]
    assert sorted(trained_tensors(shape, trainable)) == sorted(trained)
    assert added_frozen(shape, trainable) == frozen_numbers(tuned, without=before)


def frozen_numbers(tuned: Any, *, without: set[int]) -> int:
    """Numbers that a model got with its adapter and does not train; layers may refer to the same ones."""
    found = {
        id(tensor): tensor.numel() for tensor in (*tuned.parameters(), *tuned.buffers()) if not tensor.requires_grad
    }
    for module in tuned.modules():
        # PEFT keeps these in dictionaries of their own.
        for name in ("vera_A", "vera_B", "randlora_A", "randlora_B", "shira_indices", "delora_w_norm"):
            found |= {id(tensor): tensor.numel() for tensor in (getattr(module, name, None) or {}).values()}
    return sum(size for tensor, size in found.items() if tensor not in without)


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
