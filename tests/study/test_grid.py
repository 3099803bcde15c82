import copy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.grid import scientific
from loragrid.study.study_file import Study


@pytest.fixture
def study(toy_llama: Path, toy_gemma: Path) -> Study:
    """The demo's grid on toy models, so that rebuilding the base models does not break these tests."""
    path = ROOT / "config" / "studies" / "demo.yaml"
    settings = yaml.safe_load(path.read_text())
    for key, folder in (("llama-s", toy_llama), ("llama-m", toy_gemma), ("gemma-s", toy_gemma)):
        settings["models"][key]["path"] = str(folder)
    settings["base_case"] = {"model": "llama-s", "learning_rate": 1.0e-2, "rank": 16, "batch": [2, 4], "seed": 3407}
    settings["grid"] = {
        "design": "one_factor",
        "learning_rate": [1.0e-3, 1.0e-2, 1.0e-1],
        "rank": [4, 16, 64],
        "batch": [[2, 4], [4, 8]],
        "model": ["llama-s", "llama-m", "gemma-s"],
        "seed": [3407],
    }
    return Study(name="demo", path=path, yaml=settings)


def with_setting(study: Study, section: str, key: str, value: object) -> Study:
    settings = copy.deepcopy(study.yaml)
    settings[section][key] = value
    return replace(study, yaml=settings)


def runs(study: Study) -> list[str]:
    return [cell.run for cell in study.cells]


def test_one_factor_is_the_base_case_and_every_single_departure(study: Study) -> None:
    cells = study.cells
    assert len(cells) == 1 + 2 + 2 + 1 + 2
    assert cells[0].departs == {}
    assert all(len(cell.departs) == 1 for cell in cells[1:])


def test_axes_take_turns_so_that_any_prefix_is_balanced(study: Study) -> None:
    axes = [next(iter(cell.departs)) for cell in study.cells[1:]]
    assert axes[:4] == ["learning_rate", "rank", "batch", "model"]


def test_factorial_is_the_product_with_the_base_case_first(study: Study) -> None:
    cells = with_setting(study, "grid", "design", "factorial").cells
    assert len(cells) == 3 * 3 * 2 * 3
    assert cells[0].departs == {}
    assert [cell.run for cell in cells[:8]] == runs(study)  # every single departure before any on two axes
    assert [len(cell.departs) for cell in cells] == sorted(len(cell.departs) for cell in cells)


def test_duplicates_collapse(study: Study) -> None:
    assert runs(with_setting(study, "grid", "rank", [4, 4, 16, 64, 16])) == runs(study)


def test_adding_a_learning_rate_adds_one_run_and_renames_none(study: Study) -> None:
    more = with_setting(study, "grid", "learning_rate", [1.0e-3, 3.0e-3, 1.0e-2, 1.0e-1])
    added = set(runs(more)) - set(runs(study))
    assert set(runs(study)) < set(runs(more))
    assert len(added) == 1 and "_lr3e-3_" in added.pop()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "weight_decay", 0.1),
        ("training", "warmup_steps", 6),
        ("training", "budget", {"steps": 3}),
        ("training", "dropout", 0.1),
        ("training", "alpha", 32),
        ("training", "packing", True),
        ("training", "backend", "unsloth"),
        ("training", "compute_dtype", "bf16"),
        ("training", "target_modules", ["q_proj"]),
        ("training", "threads", 2),
        ("data", "heldout_rows", 7),
        ("data", "split_seed", 7),
        ("data", "max_length_tokens", 99),
        ("data", "loss_on", "all"),
    ],
)
def test_settings_that_determine_the_result_change_every_run_id(
    study: Study, section: str, key: str, value: object
) -> None:
    assert not set(runs(with_setting(study, section, key, value))) & set(runs(study))


@pytest.mark.parametrize(
    ("key", "value"),
    [("save_steps", 7), ("save_minutes", 3), ("keep_checkpoints", 9), ("session_minutes", 55), ("report_to", "wandb")],
)
def test_other_settings_change_no_run_id(study: Study, key: str, value: object) -> None:
    assert runs(with_setting(study, "training", key, value)) == runs(study)


def test_a_model_is_identified_by_its_content_not_its_path(study: Study, tmp_path: Path) -> None:
    entry = study.yaml["models"]["llama-s"]
    moved = shutil.copytree(entry["path"], tmp_path / "elsewhere")
    (moved / "README.md").write_text("a note beside the weights")
    models = study.yaml["models"] | {"llama-s": entry | {"path": str(moved)}}
    assert runs(replace(study, yaml=study.yaml | {"models": models})) == runs(study)

    changed = shutil.copytree(entry["path"], tmp_path / "changed")
    weights = bytearray((changed / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "model.safetensors").write_bytes(weights)
    models = study.yaml["models"] | {"llama-s": entry | {"path": str(changed)}}
    other = runs(replace(study, yaml=study.yaml | {"models": models}))
    assert {run for run in other if run.startswith("llama-s")}.isdisjoint(runs(study))


def test_data_sets_and_bases_are_shared_by_the_runs_of_a_model(study: Study) -> None:
    assert sorted(study.data_sets.values()) == ["gemma-s", "llama-m", "llama-s"]
    assert sorted(study.bases.values()) == ["gemma-s", "llama-m", "llama-s"]


def test_find_cell(study: Study) -> None:
    cell = study.cells[3]
    assert study.cell(cell.run) == cell
    with pytest.raises(UserError, match=r"demo\.yaml: no run has this id \(nonsense\)"):
        study.cell("nonsense")


@pytest.mark.parametrize(
    ("value", "name"), [(2.0e-4, "2e-4"), (0.00025, "2.5e-4"), (1, "1e0"), (0.1, "1e-1"), (1.0e-2, "1e-2")]
)
def test_learning_rates_have_one_short_name(value: float, name: str) -> None:
    assert scientific(value) == name
