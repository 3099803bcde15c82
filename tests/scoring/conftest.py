"""Fixtures of the scoring tests: a toy study with scored subjects, and toy tasks of lm-eval."""

from pathlib import Path
from typing import Any

import pytest

import score
from loragrid.scoring.subjects import Subject
from loragrid.study.study_file import Study
from tests.fixtures.lm_eval_toys import write_tasks
from tests.fixtures.score_toys import as_base, as_run, make_run, make_study, write_data


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, toy_llama: Path) -> Study:
    """A study of three learning rates on the toy model."""
    return make_study(tmp_path_factory.mktemp("study"), toy_llama)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study's prepared data."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def runs(study: Study, toy_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    """Run id and folder of two finished runs."""
    folders = [tmp_path_factory.mktemp(f"run{number}") for number in range(2)]
    return [(make_run(study, number, folder, toy_llama), folder) for number, folder in enumerate(folders)]


@pytest.fixture(scope="session")
def scored_alone(
    study: Study, data: Path, runs: list[tuple[str, Path]], tmp_path_factory: pytest.TempPathFactory
) -> list[Subject]:
    """The base and both runs, each scored in a call of its own."""
    outs = [tmp_path_factory.mktemp(name) for name in ("base", "first", "second")]
    subjects = [as_base(study, data, outs[0]), *(as_run(run, data, out) for run, out in zip(runs, outs[1:]))]
    for subject in subjects:
        score.score_subjects(study=study, subjects=[subject])
    return subjects


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of toy task files with their data and code."""
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def network(toy_llama: Path) -> tuple[Any, Any]:
    """The toy Llama and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(toy_llama).eval(), AutoTokenizer.from_pretrained(toy_llama)
