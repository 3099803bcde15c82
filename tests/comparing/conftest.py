"""A compared synthetic study that several test files read."""

import pytest

import compare
from tests.fixtures import synthetic


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory):
    """A study with a known effect and two seeds per setting, three of the base case, compared: (study, results, summary)."""
    folder = tmp_path_factory.mktemp("made")
    study = synthetic.make_study(folder, grid={"axes": {"seed": [1, 2]}, "base_case_seeds": [1, 2, 3]})
    synthetic.make_results(study, folder / "results", seed=5)
    summary = compare.compare(study=study, results=folder / "results", out=folder / "results/compare")
    return study, folder / "results", summary
