"""Faults of bases and data, and what a study must not compare."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loragrid.comparing.diagnosing.study_checks import (
    caveats,
    chance_level,
    leaks,
    not_comparable,
    untrained_loss,
)
from loragrid.comparing.study_results import read_results
from loragrid.models.find_shape import vocabulary_size
from loragrid.records.outcomes import collect
from loragrid.study.sections import ModelEntry
from tests.fixtures import synthetic


def made_study(folder: Path, **options):
    study = synthetic.make_study(folder)
    synthetic.make_results(study, folder / "results", **options)
    return study, folder / "results"


def test_an_unscored_base_is_judged_by_what_its_runs_measured_first(tmp_path: Path) -> None:
    study, results = made_study(tmp_path, items=20)
    outcomes = collect(study, results)
    base = next(o for o in outcomes if o.kind == "base")
    assert untrained_loss(base, outcomes) == base.score.tasks["heldout_loss"].metrics["loss"]["value"]
    unscored = dataclasses.replace(base, score=None)
    assert untrained_loss(unscored, outcomes) == 2.6
    runs = [o for o in outcomes if o.record and o.base == base.subject]
    blind = dataclasses.replace(runs[0], record=dataclasses.replace(runs[0].record, first_heldout_loss=None))
    assert untrained_loss(unscored, [blind, runs[1]]) == 2.6 and untrained_loss(unscored, [blind]) is None


def test_the_vocabulary_of_a_hub_model_is_that_of_its_shape() -> None:
    entry = ModelEntry(hub="someone/model", revision="main", shape=synthetic.SHAPE, chat_template=None)
    assert vocabulary_size(entry) == 4096
    assert vocabulary_size(dataclasses.replace(entry, shape={"text_config": {"vocab_size": 7}})) == 7
    assert vocabulary_size(dataclasses.replace(entry, shape=None)) is None  # nothing was downloaded


@pytest.mark.parametrize(
    "choices, chance",
    [(["a", "b"], 0.5), ("{{[good, bad]}}", 0.5), ("{{choices.text}}", None), (None, None), (["only"], None)],
)
def test_chance_is_known_where_choices_are_written_out(tmp_path: Path, choices, chance) -> None:
    content = {"configs": {"t": {"output_type": "multiple_choice", "doc_to_choice": choices}}}
    (tmp_path / "t.json").write_text(json.dumps(content))
    assert chance_level(tmp_path / "t.json", "t") == chance


def test_a_leak_is_found_token_for_token(tmp_path: Path) -> None:
    folder = tmp_path / "results/data/one"
    folder.mkdir(parents=True)
    rows = [[1, 2, 3], [4, 5], [6]]
    pq.write_table(pa.table({"input_ids": pa.array(rows, pa.list_(pa.int32()))}), folder / "train.parquet")
    pq.write_table(pa.table({"input_ids": pa.array([[4, 5], [9]], pa.list_(pa.int32()))}), folder / "heldout.parquet")
    assert leaks(tmp_path / "results", ["one"])["one"].measured == {"shared": 1, "heldout_rows": 2}
    assert leaks(tmp_path / "results", ["two"]) == {}  # what another form of the study left is none of it
    pq.write_table(pa.table({"input_ids": pa.array([[5], [9]], pa.list_(pa.int32()))}), folder / "heldout.parquet")
    assert leaks(tmp_path / "results", ["one"]) == {}


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    study, results = made_study(tmp_path, items=20)
    found = read_results(study, results)
    axes = pd.DataFrame([{"axis": "batch", "value": "4x8", "token_ratio": 0.5, "equal_tokens": False}])
    assert not_comparable(found.outcomes, found.heldout, axes) == [
        {"code": "training_loss_over_unequal_updates"},
        {"code": "loss_across_tokenizers", "models": ["gemma-s", "llama-s"]},
        {"code": "unequal_training_tokens", "axis": "batch", "value": "4x8", "token_ratio": 0.5},
    ]
    assert caveats(study, found.outcomes) == [{"code": "alpha_moves_with_rank"}]


def test_runs_of_two_machines_and_backends_are_a_caveat(tmp_path: Path) -> None:
    study, results = made_study(tmp_path, items=20)
    path = results / "train" / study.cells[0].run / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"backend": "unsloth", "device": record["device"] | {"name": "another"}}))
    found = caveats(study, collect(study, results))
    assert found[1:] == [
        {"code": "runs_differ", "field": "machines", "distinct": 2},
        {"code": "runs_differ", "field": "backends", "distinct": 2},
    ]
