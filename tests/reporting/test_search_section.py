"""The report's section on a search: there when a search is, true to its numbers, the same bytes again."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import report
from loragrid.reporting.search_section import _best_first
from loragrid.reporting.sentences.search import (
    edge_remarks,
    importance_basis,
    objective_name,
    point_text,
    search_caveats,
)
from loragrid.searching.trials import search_name
from loragrid.study.search.winner import read_search
from loragrid.study.study_file import Study, load_study
from tests.fixtures import search_toys, synthetic
from tests.fixtures.pages import SECTIONS, compare_and_report
from tune import write_result


def make(
    folder: Path, *, enabled: bool = True, trials: int = 24, scored: bool = True, **settings: Any
) -> tuple[Study, dict]:
    """A made-up study whose search is done, and whose winner has been trained and scored.

    `settings` are keys of `tune`.
    """
    tune = search_toys.TUNE | {"enabled": enabled, "trials": trials, "budget": {"tokens": 900}} | settings
    study, results = synthetic.make_study(folder, tune=tune), folder / "results"
    synthetic.make_results(study, results, items=30, prompts=2)
    search = search_toys.work(results / "tune", tune=study.yaml["tune"], name=search_name(study))
    found = write_result(study, search, results / "tune")
    if scored:
        synthetic.make_results(
            load_study(str(results / "tune" / found["winner"]["study_file"])), results, items=30, seed=3
        )
    return study, found


def section(page: str) -> str:
    return re.search(r'<section id="search".*?</section>', page, re.DOTALL)[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, dict, Path, str]:
    folder = tmp_path_factory.mktemp("searched")
    study, found = make(folder)
    return study, found, folder, compare_and_report(study, folder)


def test_the_section_stands_between_the_answers_and_the_costs(made: tuple[Study, dict, Path, str]) -> None:
    headings = re.findall(r"<h2 id=[^>]*>([^<]+)</h2>", made[3])
    assert headings == [*SECTIONS[:4], "The search", *SECTIONS[4:]]


def test_the_section_shows_every_trial_and_four_figures(made: tuple[Study, dict, Path, str]) -> None:
    _, found, folder, page = made
    text = section(page)
    rows = re.search(r"<summary>All trials.*", text, re.DOTALL)[0]
    assert rows.count("<tr>") == 1 + 24
    for name in ("history", "curves", "parallel", "importance"):
        assert f'id="figure-tune_{name}"' in text and (folder / f"reports/figures/tune_{name}.svg").is_file()
    assert f"{found['steps_saved']:.0%} of the updates" in text
    assert f"model of the space for {found['modelled']} of 24 trials" in text
    assert "compared at equal tokens" in text
    assert "on 90 training rows. Its loss is measured after each of 9 equal parts on 10 validation rows" in text
    lowest = r"loss was [\d.]+, on 10 validation rows: the lowest of \d+ complete trials, [\d.]+ under the median\. "
    assert re.search(lowest, text) and "No finding of this page uses it" in text


def test_the_winner_is_compared_with_the_base_case_like_any_run(made: tuple[Study, dict, Path, str]) -> None:
    study, found, folder, page = made
    assert "search winner" in section(page) and "all comparisons with the base case" in section(page)
    assert found["winner"]["run"] in page
    axes = (folder / "results/compare/axes.csv").read_text().splitlines()
    # Every task, and the mean of the retention tasks.
    compared = [*study.scoring.target, *study.scoring.retention, "retention"]
    assert sum(line.startswith("search,winner,base case") for line in axes) == len(compared)
    summary = json.loads((folder / "results/compare/compare.json").read_text())
    assert found["winner"]["run"] in {row["run"] for row in summary["trade_offs"]}
    # It differs from the base case in several settings, so it is no value of an axis.
    rate = f"{found['best']['point']['learning_rate']:g}"
    assert not any(line.startswith("learning_rate,") and f",{rate}," in line for line in axes)


def test_the_same_bytes_again(made: tuple[Study, dict, Path, str]) -> None:
    study, _, folder, page = made
    assert compare_and_report(study, folder) == page


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, dict, Path, str]:
    """A search that is not part of its study."""
    folder = tmp_path_factory.mktemp("apart")
    study, found = make(folder, enabled=False, trials=6, scored=False, seed=2)
    return study, found, folder, compare_and_report(study, folder)


def test_a_search_that_is_not_part_of_the_study_is_shown_without_a_run(apart: tuple[Study, dict, Path, str]) -> None:
    _, found, _, page = apart
    text = section(page)
    assert "set tune.enabled to true" in text and found["winner"]["run"] not in text
    # Four complete trials have no meaningful median: winner and settings are judged at the first measurement.
    assert re.search(r"which 6 trials reached, the later winner was the best of them, 0\.4\d under the median\.", text)
    assert "the lowest of 4 complete trials. The lowest of several" in text
    assert 'id="figure-tune_importance"' in text and "losses of 6 trials at the first of 9 measurements" in text
    few = importance_basis({"at": "first", "trials": 4, "shares": None, "left_out": []}, 9)
    assert few.startswith("With 4 trials to compare, nothing can be said")


def test_without_a_search_or_with_another_one_s_result_there_is_no_section(
    apart: tuple[Study, dict, Path, str], tmp_path: Path
) -> None:
    study, _, folder, page = apart
    # The comparison does not read the search, so it is not made again.
    results = shutil.copytree(folder / "results", tmp_path / "results")
    file = results / "tune/tune.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"settings_sha256": "of other settings"}))
    report.report(study=study, results=results, out=tmp_path / "reports/report.html")
    assert 'id="search"' in page and 'id="search"' not in (tmp_path / "reports/report.html").read_text()
    file.unlink()
    assert read_search(study, results) is None


def test_a_search_without_a_complete_trial_says_so() -> None:
    lines = search_caveats({"rows": [{}] * 4, "modelled": 0, "best": None, "outcomes": {"diverged": 4}})
    assert lines[0].endswith("Read this as a random search.") and "there is no winner" in lines[1]


def test_a_winner_at_the_edge_of_the_space_is_named() -> None:
    space = search_toys.TUNE["spaces"]["toy"]
    found = {
        "settings": {"parameters": space},
        "best": {"point": {"learning_rate": 0.9, "weight_decay": 5, "rank": 64}},
    }
    assert edge_remarks(found) == [
        "The best learning rate is at the high end of its range: a better one may be outside it."
    ]


def test_a_search_for_a_task_shows_its_value_and_not_only_the_loss() -> None:
    rows = [
        {"slot": 0, "outcome": "complete", "value": 0.2, "loss": 1.0, "curve": [[1, 2, 100, 1.0]]},
        {"slot": 1, "outcome": "complete", "value": 0.7, "loss": 1.5, "curve": [[1, 2, 100, 1.5]]},
        {"slot": 2, "outcome": "pruned", "value": None, "loss": 3.0, "curve": [[1, 2, 100, 3.0]]},
    ]
    objective = {"task": "/somewhere/running_plan.yaml", "metric": "exact", "higher_is_better": True}
    found = {"objective": objective, "rows": rows}
    assert objective_name(found) == "running plan: exact"
    assert [row["slot"] for row in sorted(rows, key=lambda row: _best_first(row, found))] == [1, 0, 2]
    objective["higher_is_better"] = False
    assert [row["slot"] for row in sorted(rows, key=lambda row: _best_first(row, found))] == [0, 1, 2]


def test_settings_of_any_kind_are_words() -> None:
    point = {
        "method": "lora_plus",
        "learning_rate": 2e-4,
        "alpha": "2 * rank",
        "batch": [2, 4],
        "warmup": {"ratio": 0.03},
        "target_modules": ["q_proj", "v_proj"],
        "weight_decay": 0.0,
    }
    assert point_text(point) == (
        "method lora_plus, learning rate 2e−4, alpha 2 × rank, batch 2×4, warm-up 3% of the updates, "
        "target modules q_proj, v_proj, weight decay 0"
    )


def test_the_page_says_what_fanova_leaves_out() -> None:
    basis = importance_basis({"at": "end", "trials": 12, "shares": {}, "left_out": ["rank", "alpha"]}, 9)
    assert "Without rank and alpha, which not every trial has. All trials have one seed:" in basis


def test_a_page_of_trials_of_several_methods(tmp_path: Path) -> None:
    """A trial has a gap where its method lacks a setting; the search's value is that of a task."""
    space = search_toys.TUNE["spaces"]["toy"] | {"method": {"choices": ["lora", "ia3"]}}
    study, found = make(tmp_path, enabled=False, scored=False, spaces={"toy": space})
    assert any("rank" not in row["point"] for row in found["rows"])
    found["objective"] = {"task": "running_plan", "metric": "exact", "higher_is_better": False}
    found["chosen_on"]["items"] = 12
    (tmp_path / "results/tune/tune.json").write_text(json.dumps(found))
    text = section(compare_and_report(study, tmp_path))
    assert "scored at the end of a trial on 12 items that the final scores do not use" in text
    assert re.search(r"exact was [\d.]+, on 12 items that the final scores do not use: the lowest of \d+", text)
    assert "Running plan: exact</th>" in text and "A setting that a trial’s method does not have is not drawn." in text
    for name in ("history", "parallel", "importance"):
        assert f'id="figure-tune_{name}"' in text
    assert "Without rank, which not every trial has." in text
