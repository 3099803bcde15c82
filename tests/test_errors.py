"""How a stage ends: one line and the exit status that says which end it was."""

import argparse
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loragrid.errors import Failed, Paused, UserError, full_disk_failure, log_option, run_main
from loragrid.full_disk import is_full_disk
from loragrid.paths import ROOT


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """A stage's process ends after Ctrl-C and ignores the next one; the tests' process goes on."""
    # A shell that runs the tests in the background makes them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
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


def test_a_full_disk_is_recognised_by_number_by_text_and_by_cause(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "file"))
    wrapped = RuntimeError("cannot save")
    wrapped.__cause__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    for error in (full, wrapped, RuntimeError("write failed: No space left on device")):
        assert is_full_disk(error)
    assert not is_full_disk(OSError(errno.EACCES, "no")) and not is_full_disk(RuntimeError("no space"))
    assert str(full_disk_failure(full)).startswith(f"{tmp_path}: the disk is full (No space left on device, ")
    assert "the disk is full, so x is lost (Disk quota exceeded, " in str(
        full_disk_failure(wrapped, tmp_path, lost=", so x is lost")
    )


def test_a_log_on_a_full_disk_leaves_the_line_on_the_terminal(small_disk: Path) -> None:
    code = """
import sys
from pathlib import Path
from loragrid.errors import log_option, run_main
import argparse
def main():
    argparse.ArgumentParser(parents=[log_option()]).parse_args()
    with Path(sys.argv[2]).with_name("ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
run_main(main)
"""
    command = [sys.executable, "-c", code, "--log", str(small_disk / "stage.log")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("failed: ") and "the disk is full (No space left on device" in line and "Fix: free" in line


def test_python_without_docstrings_and_asserts_starts_a_stage() -> None:
    command = [sys.executable, "-OO", str(ROOT / "scripts" / "plan.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "--results" in done.stdout, done.stderr
