"""In how many processes a data set is prepared: several only where a source is large."""

from pathlib import Path

import pytest

from loragrid.study.study_file import load_study
from loragrid.workflow import data_processes as module
from loragrid.workflow.data_processes import MOST_PROCESSES, data_processes
from loragrid.workflow.jobs import Jobs
from tests.fixtures.chat_data import good_rows, study_of_sets, write_rows


def test_small_sources_and_the_demo_take_one_process() -> None:
    study = load_study("demo")
    jobs = Jobs(study, results="results/demo", session_minutes=None)
    assert {jobs.data_processes(data) for data in study.data_sets} == {1}
    assert jobs.data_processes("the_winner_s_own") == 1


def test_large_sources_take_several(tmp_path: Path, toy_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.jsonl", "b.jsonl", ".hidden.jsonl"):
        write_rows(folder / name, good_rows(30))
    small = write_rows(tmp_path / "small.jsonl", good_rows(30))
    data = {
        "folder": {"source": {"path": str(folder)}},
        "small": {"source": {"path": str(small)}},
        "few": {"source": {"generator": "running_plans", "rows": 10, "seed": 1}},
        "many": {"source": {"generator": "running_plans", "rows": 10_000, "seed": 1}},
        "hub": {"source": {"hub": "a/b", "revision": "main", "split": "train"}},
        "mix": {"mix": {"few": 1, "inner": 1}},
        "inner": {"mix": {"small": 1, "folder": 2}},
    }
    study = study_of_sets(data, toy_llama)
    monkeypatch.setattr(module, "LARGE_BYTES", 2 * small.stat().st_size)
    found = {name: data_processes(study, name) for name in data}
    several = {name for name, processes in found.items() if processes == MOST_PROCESSES}
    assert several == {"folder", "many", "hub", "mix", "inner"}
    assert {found[name] for name in data if name not in several} == {1}
