from pathlib import Path

import pytest

from tests.fixtures.external_runs import write_three_runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_three_runs(tmp_path / "runs")
