"""A valid study to break, its stages, and a study that is interrupted."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.bad_input import Stages, Workspace
from tests.fixtures.workplace import Workplace


@pytest.fixture
def workspace(tmp_path: Path, toy_llama: Path) -> Workspace:
    return Workspace(tmp_path, toy_llama)


@pytest.fixture
def stages(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Stages:
    return Stages(workspace, monkeypatch, capfd)


@pytest.fixture
def work(tmp_path: Path, toy_llama: Path) -> Iterator[Workplace]:
    made = Workplace(tmp_path / "here", toy_llama, tmp_path / "drive")
    made.drive.mkdir()
    yield made
    for process in made.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
