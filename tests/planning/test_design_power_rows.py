"""What the plan says that a design can find: against simulated studies, and against what compare does."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import compare
from loragrid.planning.design_power_rows import design_power
from loragrid.planning.design_texts import design_rows, design_warnings
from loragrid.planning.expected_noise import BASE_ITEM, ITEM_SEED, MEASURED, SEED_SD, SETTING_ITEM, assumed_noise
from loragrid.planning.plan_page import format_table, render_page
from loragrid.planning.planned_comparisons import Contrast, Measure, Question, planned_contrasts
from loragrid.planning.scoring_cost import TaskSize, task_sizes
from loragrid.statistics.seed_spread import seed_spreads
from loragrid.statistics.setting_contrasts import Arm, SeedShare, contrast_test, item_part
from loragrid.study.study_file import Study
from plan import make_plan
from tests.fixtures import synthetic
from tests.fixtures.studies import changed, toy_study


def simulated_verdicts(
    rng: np.random.Generator, seeds: tuple[int, ...], items: int, gain: float
) -> tuple[float, float]:
    """p of the first departure against the base case, planted `gain` better, and its estimate, in one study."""
    ease = rng.normal(0.0, 0.5, items)
    arms = []
    for arm, count in enumerate(seeds):
        # Two settings differ on an item with the assumed variance, so each has half of it.
        own = ease + rng.normal(0.0, math.sqrt(SETTING_ITEM / 2), items) + (gain if arm == 1 else 0.0)
        of_seed = rng.normal(0.0, SEED_SD, (count, 1))
        arms.append(own + of_seed + rng.normal(0.0, math.sqrt(ITEM_SEED), (count, items)))
    spreads = seed_spreads({arm: values.mean(axis=1) for arm, values in enumerate(arms)})
    weights = np.ones(items)
    sides = [Arm(arms[0], weights, -1.0, spreads[0]), Arm(arms[1], weights, 1.0, spreads[1])]
    shares = [SeedShare(1 / seeds[arm], spreads[arm]) for arm in (0, 1)]
    found = contrast_test([item_part(sides, None)], shares, 0.95)
    return found.p, found.difference


def test_the_smallest_difference_is_found_as_often_as_the_plan_says(tmp_path: Path) -> None:
    grid = {"axes": {"rank": [16, 4, 64], "dropout": [0.0, 0.1], "seed": [1, 2, 3]}, "base_case_seeds": [4, 5]}
    study = toy_study({"toy": tmp_path}, grid=grid, base_case={"seed": 1})
    contrasts = planned_contrasts(study)
    assert contrasts.seeds == (5, 3, 3, 3) and len(contrasts) == 4 + 3
    question = Question(Measure(200, 200, assumed_noise()), contrasts, 0.05 / len(contrasts))
    least = question.smallest_between_settings(0.8)
    rng = np.random.default_rng(5)
    found = [simulated_verdicts(rng, contrasts.seeds, 200, least) for _ in range(250)]
    assert np.mean([p < question.level and gain > 0 for p, gain in found]) == pytest.approx(0.8, abs=0.07)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, dict]:
    """A study with every kind of comparison, and what compare makes of its results."""
    folder = tmp_path_factory.mktemp("judged")
    grid = {
        "axes": {"learning_rate": None, "batch": None, "model": None, "rank": [4, 16], "method": ["lora", "none"]}
        | {"seed": [1, 2]},
        "cells": {"light": {"rank": 4, "dropout": 0.1}},
        "base_case_seeds": [3],
    }
    study = synthetic.make_study(folder, grid=grid)
    synthetic.make_results(study, folder / "results", items=40, losses=False)
    return (
        study,
        folder / "results",
        compare.compare(study=study, results=folder / "results", out=folder / "results" / "compare"),
    )


def test_the_families_are_those_that_compare_corrects(judged: tuple[Study, Path, dict]) -> None:
    study, results, summary = judged
    assert design_power(study, results)["comparisons"] == summary["families"]["setting"]


def test_measured_noise_replaces_the_assumptions(judged: tuple[Study, Path, dict], tmp_path: Path) -> None:
    study, results, _ = judged
    before, after = design_power(study, tmp_path), design_power(study, results)
    for row in (*after["tasks"], after["retention"]):
        assert row["noise_from"].startswith(MEASURED)
    assert before["tasks"][0]["noise_from"].startswith("assumed")
    assert before["retention"]["pass_if_unchanged"] != after["retention"]["pass_if_unchanged"]


def test_a_factorial_grid_compares_means_over_pairs(tmp_path: Path) -> None:
    grid = {"design": "factorial", "axes": {"rank": [4, 16], "dropout": [0.0, 0.1, 0.2], "seed": [1, 2]}}
    contrasts = planned_contrasts(toy_study({"toy": tmp_path}, grid=grid))
    assert contrasts.versus_base == (Contrast((2,)),) * 6
    assert contrasts.between_settings == (Contrast((2,) * 6, 3), Contrast((2,) * 4, 2), Contrast((2,) * 4, 2))


def test_a_mean_over_unequal_tasks_varies_as_its_parts_do() -> None:
    sizes = [TaskSize(items=count, requests=1, request_tokens=0, answer_tokens=0) for count in (100, 400)]
    measure = Measure.of(sizes, None)
    assert measure.noise.versus_base.item / measure.units == pytest.approx((BASE_ITEM / 100 + BASE_ITEM / 400) / 4)
    assert measure.noise.versus_base.seed == pytest.approx(SEED_SD**2 / 2)


def test_items_that_ask_the_same_count_once(tmp_path: Path) -> None:
    task = {"task": "mine", "output_type": "multiple_choice", "dataset_kwargs": {"file": "mine.jsonl"}}
    task["metadata"] = {"version": 1.0}
    file = tmp_path / "mine.yaml"
    items = [{"question": f"q{number // 3}", "topic": f"t{number // 6}", "choices": ["a", "b"]} for number in range(12)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, items)))
    file.write_text(json.dumps(task))
    scoring = toy_study({"toy": tmp_path}, scoring={"target": [str(file)], "retention": [], "limit": 9}).scoring
    (size,) = task_sizes(scoring).values()
    assert (size.items, size.units) == (9, 3)
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps(task | {"metadata": {"version": 1.0, "cluster_field": "topic"}}))
    scoring = toy_study({"toy": tmp_path}, scoring={"target": [str(other)], "retention": [], "limit": 9}).scoring
    assert [size.units for size in task_sizes(scoring).values()] == [2]


def test_the_t4_study_finds_what_its_comment_says(t4: Study, tmp_path: Path) -> None:
    plan = make_plan(study=t4, results=tmp_path)
    design = plan["design"]
    (ifeval,) = (row for row in design["tasks"] if row["task"] == "ifeval")
    assert ifeval["family"] == "target" and ifeval["comparisons"] == 15
    assert (round(100 * ifeval["versus_base"]), round(100 * ifeval["between_settings"])) == (8, 9)
    assert design["retention"]["pass_if_unchanged"] == pytest.approx(0.85, abs=0.01)
    assert design["losses"] == ["rephrased_prompts", "heldout_loss"]
    assert design_warnings(design) == []
    shown, page = format_table(plan), render_page(plan)
    assert "ifeval" in shown and "passes retention_margin 0.03 with a probability of 0.85" in shown
    assert '<th scope="row">ifeval</th><td>target</td><td>541</td><td>15</td>' in page
    assert json.loads(json.dumps(plan, allow_nan=False)) == plan


def test_two_seeds_and_few_items_are_warned_about(t4: Study, tmp_path: Path) -> None:
    limit = {"ifeval": 40, "running_plan_general": 40, "others": 100}
    axes = dict(t4.yaml["grid"]["axes"]) | {"seed": [3407, 1]}
    weak = changed(t4, scoring__limit=limit, grid__axes=axes, grid__base_case_seeds=[], compare__retention_margin=0.01)
    design = design_power(weak, tmp_path)
    # An arm of two seeds uses its own spread in one of five studies, and then hardly anything is found.
    assert design["tasks"][0]["between_settings"] is None and design["tasks"][0]["seeds_needed"] > 2
    ifeval, others, retention, margin = design_warnings(design)
    assert ifeval.startswith("ifeval: finds a difference of 25 points with a probability of ") and "Fix: " in ifeval
    assert others.startswith("running_plan_general, hellaswag, arc_challenge, winogrande: can hardly find")
    assert retention.startswith("mean of the retention tasks: finds a difference of 25 points")
    assert margin.startswith("retention_margin: a setting that forgot nothing passes 0.01 with a probability of 0.")
    assert "one more seed in every arm and retention_margin 0.0" in margin
    assert design_rows(design)[0][-1] == "none"


def test_one_seed_says_nothing_about_a_setting(t4: Study, tmp_path: Path) -> None:
    axes = {name: values for name, values in t4.yaml["grid"]["axes"].items() if name != "seed"}
    design = design_power(changed(t4, grid__axes=axes, grid__base_case_seeds=[]), tmp_path)
    assert design["one_seed"] == design["settings"] == 8
    (line,) = design_warnings(design)
    assert line.startswith("8 of 8 settings: one seed each") and "Fix: list a second and a third seed" in line
    assert {row[-2:] for row in design_rows(design)} == {("–", "–")}


def test_a_task_of_unknown_size_has_no_figure(t4: Study, tmp_path: Path) -> None:
    scoring = {"target": ["gsm8k_cot"], "retention": ["mmlu"], "limit": None}
    design = design_power(changed(t4, **{f"scoring__{key}": value for key, value in scoring.items()}), tmp_path)
    assert [row[-2:] for row in design_rows(design)] == [("?", "?")] * 3
    assert design["retention"]["pass_if_unchanged"] is None and design_warnings(design) == []
