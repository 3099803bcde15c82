"""The rows of a search: taken from the training rows in whole groups, never the held-out rows."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from loragrid.data.training_data import GROUPS, load_training_data, write_groups
from loragrid.errors import UserError
from loragrid.searching.trials import TrialRunner
from loragrid.searching.validation_rows import search_rows
from loragrid.study.study_file import Study
from tests.fixtures.train_toys import Toy


def variant(toy: Toy, **changes: Any) -> Study:
    """The study with other keys in `tune`."""
    return dataclasses.replace(toy.study, yaml=toy.study.yaml | {"tune": toy.study.yaml["tune"] | changes})


def texts(rows: Any) -> set[str]:
    return {json.dumps(row) for row in rows["input_ids"]}


def test_a_search_sees_no_held_out_row_and_trains_on_no_validation_row(toy: Toy) -> None:
    prepared, data = load_training_data(toy.data), TrialRunner(toy.study, toy.data).data
    assert texts(data.train) | texts(data.heldout) == texts(prepared.train)
    assert not texts(data.train) & texts(data.heldout)
    assert not (texts(data.train) | texts(data.heldout)) & texts(prepared.heldout)
    # Rows 2 n and 2 n + 1 share a group.
    assert len(data.heldout) == 6 and not {r // 2 for r in data.heldout["row"]} & {r // 2 for r in data.train["row"]}
    assert list(search_rows(toy.study, toy.data).heldout["row"]) == list(data.heldout["row"])
    assert len(search_rows(variant(toy, validation_rows=12), toy.data).heldout) == 12


def test_by_default_a_tenth_of_the_rows_is_set_aside(toy: Toy) -> None:
    """At most as many as are held out, 10 in this study, and whole groups of two."""
    assert len(search_rows(variant(toy, validation_rows=None), toy.data).heldout) == 4


@pytest.mark.parametrize(
    ("rows", "groups", "message"),
    [
        (16, None, "tune.validation_rows: more than half of the 30 training rows (16). Fix: lower it to 15 or less."),
        (5, [0] * 30, "tune.validation_rows: 5 of the 30 training rows cannot be set aside without sharing an answer "),
        (5, [0] * 29, "row_groups.parquet: no group of training row 29. Fix: run prepare_data again."),
        (5, [], "row_groups.parquet: the file is missing. Fix: run prepare_data."),
    ],
)
def test_rows_that_cannot_be_set_aside_are_one_line(
    toy: Toy, tmp_path: Path, rows: int, groups: list[int] | None, message: str
) -> None:
    data = shutil.copytree(toy.data, tmp_path / "data")
    if groups is not None:
        (data / GROUPS).unlink()
    if groups:
        write_groups(data / GROUPS, range(len(groups)), groups)
    with pytest.raises(UserError) as caught:
        search_rows(variant(toy, validation_rows=rows), data)
    assert message in str(caught.value) and "\n" not in str(caught.value)
