"""How a stage ends: one line and the exit status that says which end it was."""

import argparse
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loragrid.errors import Failed, Paused, UserError, log_option, run_main


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """A stage's process ends after Ctrl-C and ignores the next one; the tests' process goes on."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("end", "status", "line"),
    [
        (UserError("rank of a.yaml\nis no number"), 2, "error: rank of a.yaml is no number"),
        (Failed("the disk is full"), 1, "failed: the disk is full"),
        (Paused("train: paused at step 3"), 75, "train: paused at step 3"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
    ],
)
def test_an_end_is_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, end: BaseException, status: int, line: str
) -> None:
    def main() -> None:
        raise end

    monkeypatch.setattr(sys, "argv", ["stage.py"])
    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert (ended.value.code, capsys.readouterr().err) == (status, f"{line}\n")
    assert (signal.getsignal(signal.SIGINT) is signal.SIG_IGN) == (status == 130), "a second Ctrl-C interrupts the end"


def test_a_path_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").touch()
    for main in (
        (tmp_path / "file" / "folder").mkdir,
        lambda: argparse.ArgumentParser(parents=[log_option()]).parse_args(["--log", str(tmp_path)]),
    ):
        with pytest.raises(SystemExit) as ended:
            run_main(main)
        line = capsys.readouterr().err
        assert ended.value.code == 2 and line.count("\n") == 1
        assert line.startswith(f"error: {tmp_path}") and " directory. Fix: " in line
