"""Toy runs and checkpoints of several files; imports no library that unsloth must precede."""

from pathlib import Path

import pytest

from tests.fixtures.checkpoint_toys import store, write_checkpoint
from tests.fixtures.train_toys import Toy, make_toy


@pytest.fixture(scope="session")
def toy(toy_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"), toy_llama)


@pytest.fixture(scope="session")
def reference(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that nothing disturbed."""
    out = tmp_path_factory.mktemp("reference") / "run"
    toy.train(out)
    return out


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 5 and 10."""
    for step in (5, 10):
        store(tmp_path).save(step=step, state={"at": step}, write=write_checkpoint)
    return tmp_path
