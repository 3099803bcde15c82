"""Plans are made from files alone: no GPU, and no connection."""

import socket
from typing import Any

import pytest

from loragrid.planning import gpu_cards
from loragrid.study.study_file import Study, load_study


@pytest.fixture(autouse=True)
def nothing_but_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, and an error for any code that opens a connection."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a plan opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(gpu_cards, "detect_gpu", lambda: None)
    # A quiet core of a server; measuring this machine's takes two seconds.
    monkeypatch.setattr(gpu_cards, "product_tflops", lambda threads: 0.06 * threads)


@pytest.fixture
def t4() -> Study:
    return load_study("t4")
