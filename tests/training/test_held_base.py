"""Runs on the base that a resident worker holds equal, bit for bit, runs on a base that was just loaded."""

import copy
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loragrid.models import base_cache
from loragrid.models.loading import load_base
from loragrid.runtime.delegation import residency
from tests.fixtures.run_faults import assert_equal
from tests.fixtures.train_toys import Toy, make_toy


@pytest.fixture
def resident(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make this process hold what a worker would."""
    monkeypatch.setattr(residency, "_resident", True)
    yield
    residency.release_all()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The bases that were read from their files."""
    models: list[Any] = []

    def and_note(*given: Any, **named: Any) -> Any:
        models.append(load_base(*given, **named))
        return models[-1]

    monkeypatch.setattr(base_cache, "load_base", and_note)
    return models


def description(model: Any) -> dict[str, Any]:
    """Everything about a model that a run could leave behind, except the values of its weights."""
    modules = {}
    for name, module in model.named_modules():
        state = {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks")}
        state |= {
            key: repr(value) for key, value in vars(module).items() if isinstance(value, bool | int | float | str)
        }
        modules[name] = (type(module), sorted(vars(module)), state)
    parameters = {name: (one.dtype, one.requires_grad, one.grad) for name, one in model.named_parameters()}
    return {
        "modules": modules,
        "parameters": parameters,
        "buffers": {name: one.tolist() for name, one in model.named_buffers()},
        "config": copy.deepcopy(vars(model.config)),
        "generation": copy.deepcopy(vars(model.generation_config)),
    }


def _of_runs() -> list[Any]:
    """The adapted models and trainers in this process's memory."""
    from peft import PeftModelForCausalLM

    from loragrid.training.backends.trl_trainer import import_trainer

    gc.collect()
    return [one for one in gc.get_objects() if type(one) in (PeftModelForCausalLM, import_trainer())]


def test_the_second_run_equals_one_of_its_own_and_leaves_the_base_as_it_was(
    toy: Toy, reference: Path, toy_llama: Path, tmp_path: Path, resident: None, loaded: list[Any]
) -> None:
    # What tests before this one left is not of these runs.
    before = _of_runs()
    other = make_toy(tmp_path / "other", toy_llama, base_case__seed=8, base_case__rank=2, base_case__packing=True)
    other.train(tmp_path / "first")
    toy.train(tmp_path / "second")
    assert len(loaded) == 1
    assert_equal(tmp_path / "second", reference)
    left = [one for one in _of_runs() if all(one is not other for other in before)]
    assert not left, "memory of a finished run"
    entry = toy.study.base_entry(toy.cell)
    again = base_cache.held_base(entry, device="cpu")
    assert len(loaded) == 1
    assert description(again) == description(loaded[0]) == description(load_base(entry, device="cpu"))
    assert all(one is other for one, other in zip(again.parameters(), loaded[0].parameters(), strict=True))


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_a_base_in_4_bits_is_held_too(
    method: str, toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: list[Any]
) -> None:
    """Training casts its 16-bit weights to float32; what is scored next has them in 16 bits again."""
    pytest.importorskip("bitsandbytes")
    import torch

    absent = dict.fromkeys(("rank", "alpha", "dropout"), None) if method == "ia3" else {}
    changes = {f"base_case__{name}": value for name, value in absent.items()}
    changes |= {"base_case__method": method, "base_case__precision": "4bit", "base_case__budget": {"steps": 2}}
    four_bit = make_toy(tmp_path, toy_llama, base_case__evaluations=1, **changes)
    entry, rows = four_bit.study.base_entry(four_bit.cell), torch.arange(7, 47)[None]
    four_bit.train(tmp_path / "alone")
    alone = base_cache.held_base(entry, device="cpu")(rows).logits
    monkeypatch.setattr(residency, "_resident", True)
    loaded.clear()
    for name in ("first", "second"):
        four_bit.train(tmp_path / name)
        held = base_cache.held_base(entry, device="cpu")
        assert torch.equal(held(rows).logits, alone) and len(loaded) == 1
        assert_equal(tmp_path / name, tmp_path / "alone")
    assert description(held) == description(load_base(entry, device="cpu"))
    residency.release_all()


@pytest.mark.parametrize("method", ["pissa", "full"])
def test_a_method_that_changes_the_base_loads_its_own(
    method: str, toy_llama: Path, tmp_path: Path, resident: None, loaded: list[Any]
) -> None:
    absent = dict.fromkeys(("rank", "alpha", "dropout", "target_modules"), None) if method == "full" else {}
    changes = {f"base_case__{name}": value for name, value in absent.items()}
    toy = make_toy(tmp_path, toy_llama, base_case__method=method, base_case__budget={"steps": 1}, **changes)
    base_cache.held_base(toy.study.base_entry(toy.cell), device="cpu")
    toy.train(tmp_path / "run")
    assert len(loaded) == 2
    base_cache.held_base(toy.study.base_entry(toy.cell), device="cpu")
    assert len(loaded) == 3


def test_changed_weights_and_changed_files_are_loaded_again(
    toy: Toy, resident: None, loaded: list[Any], capsys: pytest.CaptureFixture, tmp_path: Path, toy_llama: Path
) -> None:
    import shutil
    from dataclasses import replace

    import torch

    folder = shutil.copytree(toy_llama, tmp_path / "model")
    entry = replace(toy.study.base_entry(toy.cell), path=str(folder))
    model = base_cache.held_base(entry, device="cpu")
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    assert base_cache.held_base(entry, device="cpu") is not model and len(loaded) == 2
    assert "the last job changed the base in memory: it is loaded again" in capsys.readouterr().err
    base_cache.held_base(replace(entry, precision="16bit"), device="cpu")
    assert len(loaded) == 3, "another precision is another base"
    (folder / "config.json").touch()
    base_cache.held_base(replace(entry, precision="16bit"), device="cpu")
    assert len(loaded) == 4


def test_a_process_that_is_no_worker_holds_nothing(toy: Toy, loaded: list[Any]) -> None:
    entry = toy.study.base_entry(toy.cell)
    assert base_cache.held_base(entry, device="cpu") is loaded[0]
    assert base_cache.held_base(entry, device="cpu") is loaded[1]
