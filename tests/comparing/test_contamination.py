"""Scores without contaminated items: of every subject and of the base case, per data set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loragrid.comparing.contamination import contamination
from loragrid.comparing.study_results import StudyResults, read_results
from loragrid.errors import UserError
from loragrid.study.training_sets import training_sets
from tests.fixtures import synthetic
from tests.fixtures.synthetic_records import CONTAMINATION, write_contamination


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """A study on two data sets with three seeds of the base case; a tenth of one task is contaminated in one set."""
    folder = tmp_path_factory.mktemp("contaminated")
    source = {"source": {"generator": "running_plans", "rows": 200, "seed": 5}}
    grid = {
        "base_case_seeds": [1, 2, 3],
        "axes": {"data": ["plans", "rest"], "model": None, "batch": None, "rank": None},
    }
    study = synthetic.make_study(folder, data={"rest": source}, grid=grid)
    synthetic.make_results(study, folder / "results", faults={study.cells[2].run: "failed"})
    data = training_sets(study)
    assert set(data) == {"plans", "rest"}
    write_contamination(folder / "results", data["plans"], running_plan=[str(n) for n in range(10)], world_facts=[])
    return read_results(study, folder / "results")


def test_the_score_on_the_other_items_is_their_mean(results: StudyResults) -> None:
    found = contamination(results, 0.95)
    assert set(found) == {"plans"}, "a data set that is not looked through is left out"
    tasks = found["plans"]["tasks"]
    assert tasks["world_facts"] == CONTAMINATION | {"contaminated_8": 0}
    scores = {row["subject"]: row for row in tasks["running_plan"]["scores"]}
    trained = [
        o for o in results.outcomes if o.kind == "run" and o.status == "scored" and o.cell.settings.data == "plans"
    ]
    assert set(scores) == {o.subject for o in trained} | {o.base for o in trained}
    values = results.tables["running_plan"].values
    for subject, row in scores.items():
        everything, others = values[subject].mean(), values[subject][10:].mean()
        assert (row["items"], row["other_items"]) == (100, 90)
        assert row["value"] == pytest.approx(everything) and row["other_value"] == pytest.approx(others)
        assert row["difference"] == pytest.approx(others - everything) and row["low"] < others < row["high"]


def test_the_base_case_is_the_mean_over_its_seeds(results: StudyResults) -> None:
    row = contamination(results, 0.95)["plans"]["tasks"]["running_plan"]["base_case"]
    runs = [o.subject for o in results.outcomes if o.kind == "run" and o.status == "scored" and not o.cell.arm]
    values = np.mean([results.tables["running_plan"].values[run] for run in runs], axis=0)
    assert row["seeds"] == len(runs) == 3
    assert row["value"] == pytest.approx(values.mean()) and row["other_value"] == pytest.approx(values[10:].mean())


def test_without_another_item_there_is_no_second_score(results: StudyResults) -> None:
    data = training_sets(results.study)["rest"]
    write_contamination(results.folder, data, running_plan=[str(n) for n in range(100)], no_such_task=["1"])
    tasks = contamination(results, 0.95)["rest"]["tasks"]
    assert "scores" not in tasks["no_such_task"], "a task that nobody is scored on has counts alone"
    (row, *_) = tasks["running_plan"]["scores"]
    assert row["other_items"] == 0 and np.isnan(row["other_value"]) and np.isnan(row["difference"])


@pytest.mark.parametrize("content", ["[]", "{}", "null"])
def test_a_file_of_another_form_is_one_line(results: StudyResults, tmp_path: Path, content: str) -> None:
    file = tmp_path / "find_contamination" / f"{training_sets(results.study)['plans']}.json"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(UserError, match=r"not a file that find_contamination wrote\. Fix: delete it"):
        contamination(replace(results, folder=tmp_path), 0.95)
