"""The cells of a grid: designs, seeds, tied and named arms, identities and names."""

import re
import shutil
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.study.run_names import scientific
from loragrid.study.study_file import Study
from tests.fixtures.studies import changed, toy_study

AXES = {
    "model": ["llama-s", "llama-m", "gemma-s"],
    "learning_rate": [1.0e-3, 1.0e-2, 1.0e-1],
    "rank": [4, 16, 64],
    "batch": [[2, 4], [4, 8]],
}


@pytest.fixture
def study(toy_llama: Path, toy_gemma: Path) -> Study:
    """The demo's grid on toy models, so that rebuilding the base models does not break these tests."""
    models = {"llama-s": toy_llama, "llama-m": toy_gemma, "gemma-s": toy_gemma}
    return toy_study(models, base_case={"learning_rate": 1.0e-2, "rank": 16}, grid={"axes": AXES})


def with_grid(study: Study, **grid: object) -> Study:
    return changed(study, **{f"grid__{key}": value for key, value in grid.items()})


def with_axes(study: Study, **axes: list) -> Study:
    return with_grid(study, axes=axes)


def runs(study: Study) -> list[str]:
    return [cell.run for cell in study.cells]


def test_one_factor_is_the_base_case_and_every_single_departure(study: Study) -> None:
    cells = study.cells
    assert len(cells) == 1 + 2 + 2 + 2 + 1
    assert cells[0].departs == {}
    assert all(len(cell.departs) == 1 for cell in cells[1:])


def test_axes_take_turns_so_that_any_prefix_is_balanced(study: Study) -> None:
    axes = [next(iter(cell.departs)) for cell in study.cells[1:]]
    assert axes[:4] == ["model", "learning_rate", "rank", "batch"]


def test_factorial_is_the_product_with_the_base_case_first(study: Study) -> None:
    cells = with_grid(study, design="factorial").cells
    assert len(cells) == 3 * 3 * 2 * 3
    assert cells[0].departs == {}
    assert [cell.run for cell in cells[:8]] == runs(study)  # every single departure before any on two axes
    assert [len(cell.departs) for cell in cells] == sorted(len(cell.departs) for cell in cells)


def test_adding_a_value_or_an_axis_adds_its_runs_and_renames_none(study: Study) -> None:
    more = with_axes(study, **AXES | {"learning_rate": [1.0e-3, 3.0e-3, 1.0e-2, 1.0e-1]})
    (added,) = set(runs(more)) - set(runs(study))
    assert set(runs(study)) < set(runs(more)) and "_lr0.003_" in added
    more = with_axes(study, **AXES | {"dropout": [0.0, 0.1]})
    (added,) = set(runs(more)) - set(runs(study))
    assert set(runs(study)) < set(runs(more)) and "_dropout0.1_" in added


@pytest.mark.parametrize("design", ["one_factor", "factorial"])
def test_a_listed_seed_repeats_every_arm(study: Study, design: str) -> None:
    once = with_grid(study, design=design)
    twice = with_grid(with_axes(once, **AXES | {"seed": [3407, 1]}), design=design)
    number = len(once.cells)
    assert runs(twice)[:number] == runs(once)
    again = twice.cells[number:]
    assert [cell.arm for cell in again] == [cell.arm for cell in once.cells]
    assert all(cell.settings.seed == 1 and cell.departs["seed"] == 1 and "_seed1_" in cell.run for cell in again)


def test_the_base_case_may_have_more_seeds(study: Study) -> None:
    more = with_grid(study, base_case_seeds=[5, 6, 3407])
    assert [cell.departs for cell in more.cells[len(study.cells) :]] == [{"seed": 5}, {"seed": 6}]


def test_settings_are_tied_and_cells_are_named(study: Study) -> None:
    arms = with_grid(
        study,
        axes={},
        tied=[{"rank": 64, "learning_rate": 1.0e-4}],
        cells={"large": {"rank": 256, "alpha": "sqrt(rank)", "data": "rows"}},
    )
    _, tied, large = arms.cells
    assert tied.departs == {"tied": "rank 64, learning_rate 1e-4"} and tied.run.startswith("llama-s_rank64_lr1e-4_")
    assert (tied.settings.rank, tied.settings.alpha, tied.settings.learning_rate) == (64, 64, 1.0e-4)
    assert large.departs == {"cells": "large"} and large.run.startswith("llama-s_large_")
    assert (large.settings.rank, large.settings.alpha) == (256, 16)
    assert runs(changed(arms, grid__design="cells")) == runs(arms)


def test_an_arm_that_equals_another_one_is_trained_once(study: Study) -> None:
    assert runs(with_grid(study, tied=[{"rank": 64}], cells={"same": {"rank": 16}})) == runs(study)
    # An expression and the number that it makes are one alpha.
    alphas = with_axes(study, alpha=["rank", "1 * rank", 16, "2 * rank", 32.0])
    assert [cell.settings.alpha for cell in alphas.cells] == [16, 32]


def test_alpha_moves_with_the_rank(study: Study) -> None:
    ranks = {cell.settings.rank: cell for cell in study.cells if "rank" in cell.departs}
    assert {rank: cell.settings.alpha for rank, cell in ranks.items()} == {4: 4, 64: 64}
    assert ranks[64].departs == {"rank": 64}


def test_a_method_has_no_value_for_settings_that_it_lacks(study: Study) -> None:
    cells = {cell.settings.method: cell for cell in with_axes(study, method=["lora", "full", "lora_plus", "ia3"]).cells}
    full, plus = cells["full"].settings, cells["lora_plus"].settings
    assert (full.rank, full.alpha, full.dropout, full.target_modules) == (None,) * 4
    assert (plus.rank, plus.learning_rate_ratio) == (16, 16) and cells["lora"].settings.learning_rate_ratio is None
    assert cells["ia3"].settings.rank is None and cells["ia3"].settings.target_modules == "all-linear"
    # A rank that the method does not have makes no further runs.
    product = changed(with_axes(study, method=["lora", "full"], rank=[4, 16]), grid__design="factorial")
    assert [cell.settings.method for cell in product.cells].count("full") == 1


def test_the_method_none_is_the_base_and_no_run(study: Study) -> None:
    assert [cell.settings.method for cell in with_axes(study, method=["none", "lora", "dora"]).cells] == [
        "lora",
        "dora",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base_case__weight_decay", 0.1),
        ("base_case__warmup", {"steps": 6}),
        ("base_case__warmup", {"ratio": 0.5}),
        ("base_case__budget", {"steps": 3}),
        ("base_case__dropout", 0.1),
        ("base_case__alpha", 32),
        ("base_case__method", "dora"),
        ("base_case__packing", True),
        ("base_case__backend", "unsloth"),
        ("base_case__compute_dtype", "bf16"),
        ("base_case__target_modules", ["q_proj"]),
        ("base_case__threads", 2),
        ("base_case__evaluations", 3),
        ("base_case__precision", "32bit"),
        ("base_case__max_length_tokens", 99),
        ("base_case__loss_on", "all"),
        ("heldout__rows", 7),
        ("heldout__seed", 7),
        ("data__rows__rows", 7),
        ("data__rows__filters__min_turns", 3),
    ],
)
def test_settings_that_determine_the_result_change_every_run_id(study: Study, key: str, value: object) -> None:
    digests = {run[-8:] for run in runs(study)}
    assert not {run[-8:] for run in runs(changed(study, **{key: value}))} & digests


@pytest.mark.parametrize(
    ("key", "value"),
    [("save_steps", 7), ("save_minutes", 3), ("keep_checkpoints", 9), ("session_minutes", 55), ("report_to", "wandb")],
)
def test_other_settings_change_no_run_id(study: Study, key: str, value: object) -> None:
    assert runs(changed(study, **{f"training__{key}": value})) == runs(study)


def test_a_number_has_one_identity_however_it_is_written(study: Study) -> None:
    assert runs(changed(study, base_case__alpha=32)) == runs(changed(study, base_case__alpha=32.0))
    assert runs(changed(study, base_case__max_grad_norm=1)) == runs(study)


def test_a_model_is_identified_by_its_content_not_its_path(study: Study, tmp_path: Path) -> None:
    entry = study.yaml["models"]["llama-s"]
    moved = shutil.copytree(entry["path"], tmp_path / "elsewhere")
    (moved / "README.md").write_text("a note beside the weights")
    assert runs(changed(study, **{"models__llama-s": entry | {"path": str(moved)}})) == runs(study)

    other = shutil.copytree(entry["path"], tmp_path / "changed")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    found = runs(changed(study, **{"models__llama-s": entry | {"path": str(other)}}))
    assert {run for run in found if run.startswith("llama-s")}.isdisjoint(runs(study))


def test_data_sets_and_bases_are_shared_by_the_runs_of_a_model(study: Study) -> None:
    assert sorted(cell.model for cell in study.data_sets.values()) == ["gemma-s", "llama-m", "llama-s"]
    assert sorted(cell.model for cell in study.bases.values()) == ["gemma-s", "llama-m", "llama-s"]
    # One base is compared with runs on any data; another precision is another base on the same rows.
    more = changed(with_axes(study, precision=["16bit", "32bit"]), base_case__precision="32bit")
    assert len(more.data_sets) == 1 and len(more.bases) == 2
    lengths = with_axes(study, max_length_tokens=[64, 256])
    assert len(lengths.data_sets) == 2 and len(lengths.bases) == 1


def test_a_base_is_scored_once_whatever_the_number_of_training_rows(study: Study) -> None:
    fewer = changed(study, data__rows__rows=100)
    assert fewer.bases.keys() == study.bases.keys()
    assert not fewer.data_sets.keys() & study.data_sets.keys()


def test_a_base_has_the_precision_of_its_run(study: Study) -> None:
    cells = with_axes(study, precision=["16bit", "32bit"]).cells
    assert [study.base_entry(cell).precision for cell in cells] == ["16bit", "32bit"]


def test_find_cell(study: Study) -> None:
    cell = study.cells[3]
    assert study.cell(cell.run) == cell
    with pytest.raises(UserError, match=r"toy\.yaml: no run has this id \(nonsense\)"):
        study.cell("nonsense")


def test_names_are_safe_and_at_most_80_characters(study: Study) -> None:
    modules = [["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "attention"]
    many = with_axes(study, target_modules=["all-linear", *modules], budget=[{"tokens": 5000}, {"epochs": 0.5}])
    names = runs(with_grid(many, tied=[{"rank": rank, "alpha": "2 * rank", "batch": [2, 1]} for rank in (8, 1024)]))
    assert all(len(name) <= 80 and re.fullmatch(r"[A-Za-z0-9.+_-]+_[0-9a-f]{8}", name) for name in names)
    assert len(set(names)) == len(names)
    shown = {name.rpartition("_")[0] for name in names}
    assert {"llama-s_modules-attention", "llama-s_budget5000tokens", "llama-s_rank8_alpha16_batch2x1"} <= shown


@pytest.mark.parametrize(
    ("value", "name"), [(2.0e-4, "2e-4"), (0.00025, "2.5e-4"), (1, "1e0"), (0.1, "1e-1"), (1.0e-2, "1e-2")]
)
def test_learning_rates_have_one_short_name(value: float, name: str) -> None:
    assert scientific(value) == name


def test_an_arm_may_have_seeds_of_its_own(study: Study) -> None:
    more = with_grid(study, arm_seeds=[{"arm": {"rank": 64}, "seeds": [1, 3407, 2]}])
    added = [cell for cell in more.cells if cell.run not in runs(study)]
    assert set(runs(study)) < set(runs(more))
    assert [(cell.arm, cell.settings.seed) for cell in added] == [({"rank": 64}, 1), ({"rank": 64}, 2)]
    seeded = with_axes(study, **AXES | {"seed": [3407, 1]})
    assert {cell.run for cell in added} & set(runs(seeded)) == {added[0].run}  # the same run either way


def test_seeds_of_an_arm_that_the_grid_does_not_have_are_refused(tmp_path: Path) -> None:
    from tests.fixtures import synthetic

    with pytest.raises(UserError, match=r"grid\.arm_seeds\[0\]\.arm: not an arm of the grid \(rank 65\)\. Fix: name "):
        synthetic.make_study(tmp_path, grid={"arm_seeds": [{"arm": {"rank": 65}, "seeds": [1]}]})
