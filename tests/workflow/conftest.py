"""A valid study to break, and its stages, for the tests of bad input."""

from pathlib import Path

import pytest

from tests.fixtures.bad_input import Stages, Workspace


@pytest.fixture
def workspace(tmp_path: Path, toy_llama: Path) -> Workspace:
    return Workspace(tmp_path, toy_llama)


@pytest.fixture
def stages(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Stages:
    return Stages(workspace, monkeypatch, capfd)
