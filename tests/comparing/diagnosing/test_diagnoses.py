"""The diagnosis of whole studies, from records and tables to compare.json: healthy ones and faulty ones."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

import compare
from loragrid.study.study_file import load_study
from tests.fixtures import synthetic


def made_study(folder: Path, **options):
    study = synthetic.make_study(folder)
    synthetic.make_results(study, folder / "results", **options)
    return study, folder / "results"


def healthy(cell) -> dict[str, float]:
    """All runs learn equally, and none forgets."""
    return {"target": 0.8 if cell else 0.12, "retention": 0.7, "loss": 1.1 if cell else 2.6}


def test_a_healthy_study_has_no_fault_from_end_to_end(tmp_path: Path) -> None:
    study, results = made_study(tmp_path, effect=healthy, items=200)
    summary = compare.compare(study=study, results=results, out=tmp_path / "out")
    assert summary["base_faults"] == {}
    assert summary["diagnoses"] == {cell.run: [] for cell in study.cells}


def test_a_leak_is_the_fault_of_every_run_on_those_data(tmp_path: Path) -> None:
    study, results = made_study(tmp_path, effect=healthy, items=100)
    leaky = study.cells[0].data
    for name, rows in (("train", [[1, 2, 3], [4, 5]]), ("heldout", [[4, 5], [9]])):
        table = pa.table({"input_ids": pa.array(rows, pa.list_(pa.int32()))})
        pq.write_table(table, results / "data" / leaky / f"{name}.parquet")
    found = compare.compare(study=study, results=results, out=tmp_path / "out")["diagnoses"]
    for cell in study.cells:
        assert {cause["cause"] for cause in found[cell.run]} == ({"leak"} if cell.data == leaky else set())


def test_a_base_that_lost_by_four_bits_is_the_fault_of_its_runs(tmp_path: Path) -> None:
    made = synthetic.make_study(tmp_path)
    text = yaml.safe_load(made.path.read_text())
    text["base_case"]["precision"] = "16bit"
    text["grid"] = {"axes": {"precision": ["16bit", "4bit"]}}
    made.path.write_text(yaml.safe_dump(text))
    study, results = load_study(str(made.path)), tmp_path / "results"
    synthetic.make_results(study, results, effect=healthy, items=200)
    base = next(base for base, cell in study.bases.items() if cell.settings.precision == "4bit")
    path = results / "score" / base / "score.json"
    path.write_text(path.read_text().replace('"32bit"', '"4bit"'))
    path = results / "score" / base / "items.parquet"
    items = pd.read_parquet(path)
    items.loc[(items["task"] == "world_facts") & (items["item"].astype(int) % 3 == 0), "value"] = 0.0
    items.to_parquet(path)
    found = compare.compare(study=study, results=results, out=tmp_path / "out")["diagnoses"]
    for cell in study.cells:
        named = [cause for cause in found[cell.run] if cause["cause"] == "precision"]
        assert bool(named) == (cell.settings.precision == "4bit")
        assert all(cause["measured"]["task"] == "world_facts" for cause in named)


def test_a_base_that_guesses_is_named_before_all(tmp_path: Path) -> None:
    poor = {"target": 0.3, "retention": 0.25, "loss": 2.0}
    study, results = made_study(tmp_path, effect=lambda cell: poor)
    config = {"configs": {"world_facts": {"output_type": "multiple_choice", "doc_to_choice": ["a", "b", "c", "d"]}}}
    for base in (results / "score").glob("base-*"):
        (base / "lm_eval").mkdir()
        (base / "lm_eval/world_facts.json").write_text(json.dumps(config))
    summary = compare.compare(study=study, results=results, out=tmp_path / "out")
    assert {c["cause"] for found in summary["base_faults"].values() for c in found} == {"broken_base"}
    assert all("broken_base" in {c["cause"] for c in found} for found in summary["diagnoses"].values())


def test_a_base_near_an_even_guess_is_named(tmp_path: Path) -> None:
    """ln 16 = 2.77: the base's own score of 2.6 is within a tenth of it."""
    study = synthetic.make_study(tmp_path)
    (tmp_path / "models/llama-s/config.json").write_text(json.dumps(synthetic.SHAPE | {"vocab_size": 16}))
    synthetic.make_results(study, tmp_path / "results", items=20)
    summary = compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "out")
    (base,) = [base for base, found in summary["base_faults"].items() if "broken_base" in {c["cause"] for c in found}]
    assert "llama-s" in base
