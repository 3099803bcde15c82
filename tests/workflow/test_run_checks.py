"""Runs that cannot be what their settings say: batches above the rows are refused, warm-ups without an end announced."""

import json
import re
from pathlib import Path

import pandas
import pytest

from loragrid.errors import UserError
from loragrid.study.checks.run_length import TrainingRows, check_batch, planned_updates, warmup_warning
from loragrid.study.study_file import Study
from loragrid.workflow.run_checks import check_batches, check_runs, rows_of_card, run_warnings
from tests.fixtures.studies import changed, toy_study

LONG = TrainingRows(1000, 50.0)


@pytest.fixture
def study(toy_llama: Path) -> Study:
    return toy_study({"llama": toy_llama}, base_case={"batch": [8, 1], "budget": {"steps": 60}})


@pytest.mark.parametrize(
    ("batch", "rows", "message"),
    [
        ([32, 1], 20, r"batch: an update would take 32 rows \(\[32, 1\]\), and data set rows has 20"),
        ([4, 8], 20, r"batch: an update would take 32 rows"),
        ([21, 1], 20, r"Fix: lower the batch to 20 rows or fewer, or give more rows\.$"),
        ([10, 2], 20, None),
        ([2048, 1], None, None),
    ],
)
def test_an_update_sees_no_more_than_all_rows(study: Study, batch: list, rows: int | None, message: str | None) -> None:
    case = changed(study, base_case__batch=batch).base_case
    if message is None:
        check_batch(case, rows)
        return
    with pytest.raises(UserError, match=message):
        check_batch(case, rows)


@pytest.mark.parametrize(
    ("settings", "rows", "updates"),
    [
        ({"warmup": {"steps": 9999}}, LONG, "9999 updates of a run that has 60: .* reaches 0.0002, only 0.6% of it"),
        ({"warmup": {"steps": 60}}, TrainingRows(None), "60 updates of a run that has 60"),
        ({"warmup": {"steps": 59}}, LONG, None),
        ({"warmup": {"steps": 9999}, "schedule": "constant"}, LONG, None),
        ({"warmup": {"ratio": 0.99}}, LONG, None),
        # 4,000 tokens of 50 a row in updates of 8: 10 updates.
        ({"warmup": {"steps": 10}, "budget": {"tokens": 4000}}, LONG, "10 updates of a run that has 10"),
        ({"warmup": {"steps": 10}, "budget": {"tokens": 4000}}, TrainingRows(1000), None),
        # Epochs need no lengths: a dry run knows the rows of a file.
        ({"warmup": {"steps": 10}, "budget": {"epochs": 1}}, TrainingRows(80), "10 updates of a run that has 10"),
        ({"warmup": {"steps": 10}, "budget": {"tokens": 4000}, "packing": True}, LONG, None),
        ({"warmup": {"steps": 125}, "budget": {"epochs": 1}}, LONG, "125 updates of a run that has 125"),
        ({"warmup": {"steps": 0}, "budget": {"steps": 1}}, LONG, None),
    ],
)
def test_a_warm_up_to_the_last_update(study: Study, settings: dict, rows: TrainingRows, updates: str | None) -> None:
    case = changed(study, **{f"base_case__{key}": value for key, value in settings.items()}).base_case
    warning = warmup_warning(case, planned_updates(case, rows))
    assert (warning is None) == (updates is None)
    assert updates is None or re.match(f"warmup: {updates}", warning)


def test_every_run_and_every_trial_is_checked(study: Study) -> None:
    arms = changed(study, grid__axes={"batch": [[8, 1], [16, 2]]})
    with pytest.raises(UserError, match=r"32 rows \(\[16, 2\]\)"):
        check_batches(arms, arms.cells[0].data, 20)
    searched = toy_study(
        {"llama": Path(study.models["llama"].path)},
        base_case={"batch": [8, 1], "budget": {"steps": 60}},
        tune={"budget": {"steps": 10}, "space": "s", "spaces": {"s": {"batch": {"choices": [[8, 1], [64, 1]]}}}},
    )
    with pytest.raises(UserError, match=r"64 rows"):
        check_batches(searched, searched.cells[0].data, 20)
    check_batches(searched, searched.cells[0].data, 64)


def test_a_dry_run_knows_the_limit_the_lines_and_the_card(study: Study, tmp_path: Path) -> None:
    limited = changed(study, data__rows__rows=20, base_case__batch=[32, 1])
    with pytest.raises(UserError, match="has 20 to train on"):
        check_runs(limited, tmp_path)
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n" * 40)
    lines = changed(study, data__rows__source={"path": str(file)}, base_case__batch=[32, 1], heldout__rows=10)
    with pytest.raises(UserError, match="has 31 to train on"):
        check_runs(changed(lines, base_case__batch=[32, 1]), tmp_path)
    check_runs(changed(lines, base_case__batch=[31, 1]), tmp_path)
    assert rows_of_card({"split": {"train_rows": 4}, "tokens": {"train": 10}}) == TrainingRows(4, 2.5)
    assert rows_of_card({}) is None


def test_a_dry_run_refuses_rows_longer_than_the_context(study: Study, tmp_path: Path) -> None:
    """Also where only the held-out rows, which are as long as the base case's, are so long."""
    context = json.loads(Path(study.models["llama"].path, "config.json").read_text())["max_position_embeddings"]
    check_runs(changed(study, base_case__max_length_tokens=context), tmp_path)
    long = changed(study, base_case__max_length_tokens=context + 1)
    line = rf"max_length_tokens: {context + 1} is longer than the context of model llama, {context} tokens\. Fix: set it to"
    for one in (long, changed(long, grid__axes={"max_length_tokens": [64]})):
        with pytest.raises(UserError, match=line):
            check_runs(one, tmp_path)


FILES = {
    "rows.jsonl": b"{}\n" * 19,
    "rows.ndjson": b"{}\n" * 18 + b"{}",
    "rows.csv": b"a,b" + b"\r1,2" * 18,
    "rows.json": b"[" + b"{}," * 18 + b"{}]",
}


@pytest.mark.parametrize("name", [*FILES, "rows.parquet"])
def test_a_dry_run_refuses_to_hold_out_more_than_half(study: Study, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name in FILES:
        file.write_bytes(FILES[name])
    else:
        pandas.DataFrame({"text": ["a"] * 19}).to_parquet(file)
    small = changed(study, data__rows__source={"path": str(file)}, base_case__batch=[1, 1])
    check_runs(changed(small, heldout__rows=9), tmp_path)
    with pytest.raises(UserError, match=r"^heldout\.rows: 10 is more than half of the 19 rows of .*Fix: lower it to 9"):
        check_runs(changed(small, heldout__rows=10), tmp_path)


def test_a_file_of_one_row_cannot_be_split(study: Study, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    one = changed(study, data__rows__source={"path": str(tmp_path / "rows.jsonl")}, heldout__rows=1)
    with pytest.raises(UserError, match=r"^heldout\.set: data\.rows has 1 row; a split needs .* Fix: give more rows\.$"):
        check_runs(one, tmp_path)


@pytest.mark.parametrize(("name", "content"), [("rows.json", b"[{"), ("rows.json", b"{}"), ("rows.parquet", b"PAR1")])
def test_a_file_that_cannot_be_counted_is_left_to_its_reader(
    study: Study, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    check_runs(changed(study, data__rows__source={"path": str(tmp_path / name)}), tmp_path)


def test_a_dry_run_names_each_warm_up_once(study: Study, tmp_path: Path) -> None:
    long = changed(study, base_case__warmup={"steps": 70}, grid__axes={"seed": [1, 2]})
    (line,) = run_warnings(long, tmp_path)
    assert line.startswith(f"{long.cells[0].run}: warmup: 70 updates of a run that has 60")
    assert run_warnings(study, tmp_path) == []
