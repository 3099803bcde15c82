"""Every setting of a run is used: by the recipe and what is made of it, or by the code that is named."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from loragrid.study.settings import Settings, Warmup
from loragrid.training.backends.adapters import peft_config
from loragrid.training.backends.recipe import ELSEWHERE, Recipe, make_recipe
from loragrid.training.backends.sft_settings import sft_settings
from tests.fixtures.train_toys import Toy, make_toy

OTHER = {
    "method": "rslora",
    "learning_rate": 0.5,
    "rank": 3,
    "alpha": 0.5,
    "dropout": 0.25,
    "target_modules": "mlp",
    "learning_rate_ratio": 3.0,
    "batch": (5, 6),
    "seed": 99,
    "schedule": "cosine",
    "warmup": Warmup(ratio=0.5),
    "weight_decay": 0.5,
    "optimizer": "sgd",
    "max_grad_norm": 0.5,
    "packing": True,
    "max_length_tokens": 24,
    "compute_dtype": "bf16",
    "threads": 2,
}
# Fields of a recipe that neither TRL's settings nor PEFT's configuration has, and their use.
USED_BY = {
    "target_modules": "loragrid.models.target_modules",
    "warmup": "TrainerHooks.attach_progress",
    "learning_rate_ratio": "TrainerHooks.create_optimizer",
    "max_length_tokens": "training_rows",
    "threads": "train.prepare",
}


def with_setting(toy: Toy, name: str) -> Recipe:
    cell = replace(toy.cell, settings=replace(toy.cell.settings, **{name: OTHER[name]}))
    return make_recipe(toy.study, cell, device="cpu")


def made_of(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What the libraries are given."""
    config = peft_config(None, recipe, ["q_proj"]).to_dict() if recipe.method != "full" else {}
    return {"sft": sft_settings(recipe, folder=folder), "peft": config}


def test_every_setting_is_in_the_recipe_or_is_named() -> None:
    settings = {field.name for field in fields(Settings)}
    assert settings == OTHER.keys() | ELSEWHERE.keys() and not OTHER.keys() & ELSEWHERE.keys()


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_changes_the_recipe_and_what_is_made_of_it(name: str, toy: Toy, tmp_path: Path) -> None:
    before, after = make_recipe(toy.study, toy.cell, device="cpu"), with_setting(toy, name)
    assert before != after
    assert (made_of(before, tmp_path) != made_of(after, tmp_path)) == (name not in USED_BY)


@pytest.mark.parametrize(
    ("warmup", "planned", "updates"),
    [({"steps": 2}, 12, 2), ({"steps": 0}, 12, 0), ({"ratio": 0.25}, 12, 3), ({"ratio": 0.03}, 12, 1)],
)
def test_warmup_of_a_run(toy_llama: Path, tmp_path: Path, warmup: dict, planned: int, updates: int) -> None:
    """The learning rate rises from 0 over these updates."""
    from tests.fixtures.train_toys import rows_of

    case = {"base_case__warmup": warmup, "base_case__budget": {"steps": planned}, "base_case__schedule": "linear"}
    make_toy(tmp_path, toy_llama, **case, base_case__learning_rate=0.01).train(tmp_path / "run")
    rates = [float(row["learning_rate"]) for row in rows_of(tmp_path / "run") if row["kind"] == "train"]
    assert rates[updates] == max(rates) == pytest.approx(0.01) and all(rate < 0.01 for rate in rates[:updates])


@pytest.mark.parametrize(
    ("evaluations", "steps"), [(1, [0, 12]), (5, [0, 2, 5, 7, 10, 12]), (12, list(range(13))), (30, list(range(13)))]
)
def test_measurements_at_equal_parts_of_a_run(
    toy_llama: Path, tmp_path: Path, evaluations: int, steps: list[int]
) -> None:
    from tests.fixtures.train_toys import rows_of

    make_toy(tmp_path, toy_llama, base_case__evaluations=evaluations).train(tmp_path / "run")
    assert [int(row["step"]) for row in rows_of(tmp_path / "run") if row["kind"] == "heldout"] == steps


def test_layers_and_threads_reach_the_run(toy_llama: Path, tmp_path: Path) -> None:
    import json

    import torch

    case = {"base_case__target_modules": "attention", "base_case__threads": 2, "base_case__budget": {"steps": 1}}
    try:
        make_toy(tmp_path, toy_llama, **case).train(tmp_path / "run")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert {name.rpartition(".")[2] for name in config["target_modules"]} == {"q_proj", "k_proj", "v_proj", "o_proj"}
