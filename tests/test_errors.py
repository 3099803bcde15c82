"""How a stage ends: one line and the exit status that says which end it was."""

import sys

import pytest

from loragrid.errors import Failed, Paused, UserError, run_main


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
