"""Axes of any kind: what makes a pair, arms of several settings, methods without training, adopted adapters."""

import json
from pathlib import Path

import numpy as np
import pytest

import compare as stage
from loragrid.comparing.designs.axis_pairs import axis_values, size_of
from loragrid.comparing.designs.data_sizes import same_but_for_rows
from loragrid.records.outcomes import collect
from loragrid.study.cell_pairs import study_axes
from loragrid.study.study_file import Study
from tests.fixtures import synthetic
from tests.fixtures.compared import read_table
from tests.fixtures.synthetic_designs import NO_AXES


def compared(study: Study, folder: Path, **options):
    """The axes' table by axis, value and task, and compare.json."""
    synthetic.make_results(study, folder / "results", items=40, losses=False, **options)
    summary = stage.compare(study=study, results=folder / "results", out=folder / "results/compare")
    return read_table(folder / "results", "axes").set_index(["axis", "value", "task"]), summary


def test_alpha_that_moves_with_the_rank_is_no_axis_of_its_own(tmp_path: Path) -> None:
    grid = {"axes": NO_AXES | {"rank": [4, 16], "alpha": [64]}}
    study = synthetic.make_study(tmp_path, grid=grid, base_case={"alpha": "2 * rank"})
    rows, summary = compared(study, tmp_path)
    assert set(rows.index.droplevel("task")) == {("rank", "4"), ("alpha", "64")}
    assert rows.loc[("alpha", "64", "running_plan"), "base_case_value"] == "2 * rank"
    assert {"code": "alpha_moves_with_rank"} in summary["caveats"]


def test_arms_of_several_settings_are_compared_with_the_base_case(tmp_path: Path) -> None:
    grid = {
        "axes": NO_AXES | {"rank": [16, 64]},
        "tied": [{"rank": 64, "learning_rate": 0.001}],
        "cells": {"light": {"rank": 4, "dropout": 0.1}},
    }
    study = synthetic.make_study(tmp_path, grid=grid)
    rows, _ = compared(study, tmp_path)
    found = {(axis, value): base for (axis, value, _), base in rows["base_case_value"].items()}
    assert found == {
        ("rank", "64"): "16",
        ("tied", "learning_rate 1e-3, rank 64"): "base case",
        ("cells", "light"): "base case",
    }
    assert (rows["pairs"] == 1).all()


def test_the_value_none_of_the_method_is_the_base(tmp_path: Path) -> None:
    grid = {"axes": NO_AXES | {"method": ["lora", "dora", "none"], "seed": [1, 2, 3]}}
    study = synthetic.make_study(tmp_path, grid=grid)
    rows, _ = compared(study, tmp_path)
    none, dora = (rows.loc[("method", value, "running_plan")] for value in ("none", "dora"))
    assert none["verdict"] == "worse" and none["seeds"] == 3 and none["level"] == dora["level"] == "setting"
    base = read_table(tmp_path / "results", "scores").set_index(["subject", "task"])["value"]
    # The base itself has no seed: the spread of lora alone enters, and for dora that of both.
    spread = {}
    for method in ("lora", "dora"):
        runs = [cell.run for cell in study.cells if cell.settings.method == method]
        spread[method] = np.var([base[run, "running_plan"] for run in runs], ddof=1) / 3
    assert none["seed_stderr"] ** 2 == pytest.approx(spread["lora"])
    assert dora["seed_stderr"] ** 2 == pytest.approx(spread["lora"] + spread["dora"])
    assert none["score"] == pytest.approx(base[study.cells[0].base, "running_plan"])


def test_only_the_method_none_beside_the_base_case_is_an_axis(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path, grid={"axes": NO_AXES | {"method": ["lora", "none"]}})
    synthetic.make_results(study, tmp_path / "results", items=20, losses=False)
    assert study_axes(study) == ["method"]
    (value,) = axis_values(collect(study, tmp_path / "results"), study)
    assert (value.value, value.base_case_value) == ("none", "lora")


def test_unequal_tokens_are_refused_unless_the_axis_asks_for_them(tmp_path: Path) -> None:
    grid = {"axes": NO_AXES | {"budget": [{"tokens": 80_000}, {"tokens": 160_000}], "weight_decay": [0.01, 0.1]}}
    study = synthetic.make_study(tmp_path, grid=grid)
    synthetic.make_results(study, tmp_path / "results", items=40, losses=False)
    for cell in study.cells[1:]:
        path = tmp_path / "results/train" / cell.run / "record.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"tokens": 2 * record["tokens"]}))
    stage.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    rows = read_table(tmp_path / "results", "axes").set_index(["axis", "value", "task"])
    assert rows.loc[("budget", "160000tokens", "running_plan"), "p"] >= 0
    assert rows.loc[("weight_decay", "0.1", "running_plan"), "reason"] == "unequal_training_tokens"


def test_a_set_of_the_same_source_differs_in_rows_alone(tmp_path: Path) -> None:
    source = {"source": {"generator": "running_plans", "rows": 2400, "seed": 3407}}
    data = {
        "all": source,
        "few": source | {"rows": 100},
        "renamed": {"mix": {"all": 1}, "rows": 200},
        "short": source | {"rows": 100, "filters": {"max_turns": 2}},
        "other": {"source": {"generator": "running_plans", "rows": 2400, "seed": 1}},
        "both": {"mix": {"all": 1, "other": 2}},
    }
    study = synthetic.make_study(tmp_path, grid={"axes": NO_AXES}, data=data, base_case={"data": "all"})
    alike = [name for name in data if same_but_for_rows(study.data, "all", name)]
    assert alike == ["few", "renamed"]
    assert not same_but_for_rows(study.data, "all", "all")


def test_sizes_of_values() -> None:
    assert size_of((2, 4)) == (0, 8) and size_of({"tokens": 5}) == (0, 5) and size_of(0.1) == (0, 0.1)
    assert size_of("linear") == size_of("2 * rank") == (1, 0)


def test_an_adopted_adapter_is_compared_with_its_base_and_is_on_no_axis(tmp_path: Path) -> None:
    folder = tmp_path / "adapters/theirs"
    folder.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_text("{}")
    adopt = {"theirs": {"path": "adapters/theirs", "model": "llama-s"}}
    study = synthetic.make_study(tmp_path, grid={"axes": NO_AXES | {"rank": [16, 64]}}, adopt=adopt)
    rows, summary = compared(study, tmp_path)
    (subject,) = study.adopted
    comparisons = read_table(tmp_path / "results", "comparisons").set_index(["run", "task"])
    assert comparisons.loc[(subject, "running_plan"), "verdict"] == "adapters differ"
    assert comparisons.loc[(subject, "running_plan"), "improvement"] > 0
    assert set(rows.index.get_level_values("axis")) == {"rank"}
    assert subject in [row["run"] for row in summary["trade_offs"]] and subject not in summary["diagnoses"]
    runs = read_table(tmp_path / "results", "runs").set_index("subject")
    assert runs.loc[subject, "kind"] == "adopted"
