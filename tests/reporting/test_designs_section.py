"""The page of other designs: heat maps, learning curves, scores along runs, adopted adapters, defaults."""

import html
import re
from pathlib import Path

import pytest

from loragrid.study.completion import defaults_used
from tests.fixtures import synthetic, synthetic_designs
from tests.fixtures.pages import build_page
from tests.fixtures.synthetic_designs import NO_AXES


def test_two_axes_are_heat_maps_with_their_best_and_base_case(tmp_path: Path) -> None:
    study = synthetic_designs.factorial_study(tmp_path)
    effect = synthetic_designs.moving_rate
    page = build_page(tmp_path, study=study, effect=effect, items=100, losses=False)
    assert "Learning rate and rank, together</h3>" in page
    assert re.search(r"the best learning rate moves with the rank on running plan\.", page)
    assert "Each family is corrected by itself." in page
    # Outlined by how sure the best of a row is; beside the target is the mean over the retention tasks.
    assert "solid: proved better than all others, dotted: only measured." in page
    assert page.index('id="figure-heat_0_retention"') < page.index("single retention tasks, exploratory")
    for task in ("running_plan", "heldout_loss", "world_facts"):
        picture = re.search(rf'<figure id="figure-heat_0_{task}">.*?</figure>', page, re.DOTALL)[0]
        assert picture.count(">base case<") == 1 and ">16<" in picture and ">0.001<" in picture
    assert (tmp_path / "reports/figures/heat_0_running_plan.png").is_file()


def test_sizes_are_a_curve_with_its_law(tmp_path: Path) -> None:
    study = synthetic_designs.sizes_study(tmp_path)
    page = build_page(tmp_path, study=study, effect=synthetic_designs.learning, items=40, losses=False)
    assert "Training rows</h3>" in page and "the held-out loss follows a + b" in page
    assert "Full: means over seeds with intervals. Half full: one seed" in page
    assert 'id="figure-rows_0_loss"' in page and 'id="figure-rows_0_target"' in page
    # Values of the axis by their rows, not in the file's order.
    scores = re.search(r'<figure id="figure-scores_data">.*?</figure>', page, re.DOTALL)[0]
    assert scores.index(">few<") < scores.index(">some<") < scores.index(">many<")


def test_along_runs_both_paths_are_drawn(tmp_path: Path) -> None:
    study = synthetic_designs.along_study(tmp_path)
    page = build_page(tmp_path, study=study, path=synthetic_designs.early_gain, items=100, losses=False)
    assert '<h3 id="along">' in page and "<strong>learning rate 0.1:</strong>" in page
    assert 'id="figure-along_target"' in page and 'id="figure-along_kept"' in page
    assert "Half full: one seed." not in page


def test_the_only_run_of_a_setting_is_named_as_one_seed(tmp_path: Path) -> None:
    axes = NO_AXES | {"learning_rate": [0.01, 0.1], "seed": [1]}
    study = synthetic_designs.along_study(tmp_path, grid={"axes": axes})
    page = build_page(tmp_path, study=study, path=synthetic_designs.early_gain, items=40, losses=False)
    assert "<strong>learning rate 0.1 (one seed):</strong>" in page and "Half full: one seed." in page
    assert "a sentence is about that run" in page


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory):
    """Arms, methods, a mix and an adopted adapter in one study."""
    folder = tmp_path_factory.mktemp("mixed")
    theirs = folder / "adapters/theirs"
    theirs.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (theirs / name).write_text("{}")
    source = {"source": {"generator": "running_plans", "rows": 2400, "seed": 3407}}
    study = synthetic.make_study(
        folder,
        data={"plans": source, "half": {"mix": {"plans": 1}, "rows": 900, "filters": {"max_turns": 4}}},
        base_case={"data": "plans"},
        grid={
            "axes": NO_AXES | {"method": ["lora", "full", "none"], "data": ["plans", "half"]},
            "cells": {"light": {"rank": 4, "dropout": 0.1}},
        },
        adopt={"theirs": {"path": "adapters/theirs", "model": "llama-s"}},
    )
    return study, html.unescape(build_page(folder, study=study, items=30, losses=False))


def test_adopted_adapters_are_marked(mixed) -> None:
    _, page = mixed
    runs = page[page.index('<table id="runs-table"') :]
    assert re.search(r'<tr class="adopted"><th scope="row">adopted theirs<', runs)
    assert "adopted, scored" in runs and "adapters that were trained elsewhere" in page
    assert ">adopted theirs<" in page[: page.index('id="runs-table"')]


def test_settings_have_a_column_only_where_they_vary(mixed) -> None:
    _, page = mixed
    heads = re.findall(r"<th[^>]*>([^<]+)</th>", re.search(r'<table id="runs-table".*?</thead>', page, re.DOTALL)[0])
    assert {"Data", "Method", "Learning rate", "Rank", "Dropout", "Batch", "Seed"} <= set(heads)
    assert not {"Schedule", "Optimizer", "Precision"} & set(heads)


def test_arms_say_what_they_depart_in_and_full_has_no_rank(mixed) -> None:
    _, page = mixed
    assert "<li>light: rank 4, dropout 0.1</li>" in page
    row = re.search(r'<tr><th scope="row">full<.*?</tr>', page[page.index('id="runs-table"') :], re.DOTALL)[0]
    assert ">–</td>" in row and ">full</td>" in row
    assert "none and the adapter of lora differ (−" in page


def test_every_default_is_listed(mixed) -> None:
    study, page = mixed
    defaults = list(defaults_used(study.written))
    assert f"Settings left to their defaults: {len(defaults)}" in page
    for key in ("base_case.weight_decay", "scoring.at", "compare.correction"):
        assert f"<code>{key}</code>" in page
    assert "<code>base_case.max_length_tokens</code>" not in page


def test_filters_and_data_sets_are_named(mixed) -> None:
    _, page = mixed
    facts = page[page.index('<section id="data"') :]
    assert "at most 4 messages" in facts and re.search(r'row">Data set</th><td>half</td><td>plans</td>', facts)
    assert "nearly the prompt of a held-out row" in facts
