"""The stage as a whole: planted items in its JSON, in compare.json and on the page."""

import html
import json
import random
import re
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from find_contamination import find_contamination, read_items
from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import sha256_file
from loragrid.scoring.lm_eval_tasks import StudyTask
from loragrid.study.study_file import Study
from loragrid.study.training_sets import training_sets
from tests.fixtures import synthetic
from tests.fixtures.chat_data import sentence, talk, write_rows
from tests.fixtures.pages import compare_and_report

PLANTED = (3, 10, 11, 20, 45, 46, 60, 77, 90, 99)
ROWS = 200


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, Path]:
    """A synthetic study on the demo's tasks, its folder, and its rows, with ten items of running_plan.

    An eleventh item is in a row that is not trained on.
    """
    folder, rng = tmp_path_factory.mktemp("planted"), random.Random(1)
    lines = (ROOT / "config/tasks/demo/running_plan.jsonl").read_text().splitlines()
    prompts = [json.loads(line)["prompt"] for line in lines]
    rows = [talk(sentence(rng, 12), sentence(rng, 20)) for _ in range(ROWS)]
    for place, number in enumerate(PLANTED):
        rows[7 * place] = talk(prompts[number], sentence(rng, 20))
    rows[-1] = talk(prompts[0], sentence(rng, 20))
    file = write_rows(folder / "rows.jsonl", rows)
    study = synthetic.make_study(folder, data={"plans": {"source": {"path": str(file)}}})
    synthetic.make_results(study, folder / "results")
    data = folder / "results/data" / training_sets(study)["plans"]
    parquet.write_table(pyarrow.table({"row": range(1, ROWS)}), data / "train.parquet")
    card = json.loads((data / "card.json").read_text())
    source = {"path": file.name, "sha256": sha256_file(file)}
    card["sources"] = [{"set": "plans", "first_row": 1, "format": "sharegpt", "source": source}]
    (data / "card.json").write_text(json.dumps(card))
    return study, folder, data


def test_ten_planted_items_of_a_hundred_are_found_counted_and_shown(planted: tuple[Study, Path, Path]) -> None:
    study, folder, data = planted
    out = folder / "results/find_contamination" / f"{data.name}.json"
    found = find_contamination(study=study, data=data, out=out)
    assert json.loads(out.read_text()) == found
    assert found["rows"] == ROWS - 1 and list(found["tasks"]) == [
        task for task in study.scoring.tasks if task != "heldout_loss"
    ]
    task = found["tasks"]["running_plan"]
    assert (task["items"], task["checked"], task["contaminated_8"], task["contaminated_13"]) == (100, 100, 10, 10)
    assert task["items_8"] == task["items_13"] == [str(number) for number in PLANTED]
    assert {match["row"] for match in task["examples"]} <= {7 * place + 1 for place in range(10)}
    assert found["tasks"]["world_sums"]["contaminated_8"] == 0

    page = html.unescape(compare_and_report(study, folder))
    summary = json.loads((folder / "results/compare/compare.json").read_text())["contamination"]["plans"]
    assert summary["tasks"]["running_plan"]["contaminated_8"] == 10
    assert {row["other_items"] for row in summary["tasks"]["running_plan"]["scores"]} == {90}
    table = re.search(r'<table id="contamination">.*?</table>', page, re.DOTALL)[0]
    assert "10 of 100 items share an 8-gram with training rows (10 a 13-gram)" in table
    assert "0 of 100 items share an 8-gram with training rows" in table and "on the 90 other items" in table


def test_a_task_that_cannot_be_read_has_its_reason() -> None:
    class Broken:
        def doc_iterator(self, limit):
            raise KeyError("answer")

    task = {"name": "t", "digest": "", "limit": None}
    missing = StudyTask(**task | {"name": "gone"}, loaded=None, reason="cannot be built: no network")
    broken = StudyTask(**task, loaded={"tasks": {"t": Broken()}, "groups": {}}, reason=None)
    items, reasons = read_items([missing, broken])
    assert items == {} and reasons == {"gone": "cannot be built: no network", "t": "KeyError: 'answer'"}


def test_data_that_are_not_prepared_are_one_line(planted: tuple[Study, Path, Path], tmp_path: Path) -> None:
    study, _, _ = planted
    with pytest.raises(UserError, match=r"card\.json is missing\. Fix: "):
        find_contamination(study=study, data=tmp_path, out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
