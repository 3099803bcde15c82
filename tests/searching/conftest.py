"""A finished search over made-up losses, and a toy model to search on."""

from pathlib import Path

import pytest

from loragrid.searching.search import Search
from tests.fixtures import search_toys
from tests.fixtures.train_toys import Toy, make_toy


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Search:
    return search_toys.work(tmp_path_factory.mktemp("searched"))


@pytest.fixture(scope="session")
def toy(toy_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"), toy_llama, tune=search_toys.MODEL_TUNE)
