"""Training progress: counts and loss rows, and when to evaluate, save or stop."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from loragrid.records.losses import COLUMNS, LossTable, last_position
from loragrid.runtime.session import SessionClock, StopSignals
from loragrid.training.progress import Diverged, Progress


def make_progress(folder: Path, **changes: Any) -> Progress:
    settings = {
        "planned_steps": 10,
        "evaluations": 3,
        "save_steps": 5,
        "save_minutes": 10.0,
    } | changes
    clock = settings.pop("clock", None) or SessionClock(None)
    progress = Progress(
        run="r",
        losses=LossTable(folder / "losses.csv"),
        clock=clock,
        stop=StopSignals(),
        **settings,
    )
    progress.begin(None)
    return progress


def update(
    progress: Progress,
    step: int,
    loss: float = 1.0,
    grad_norm: float | None = 1.0,
    skipped: bool = False,
) -> None:
    progress.count_batches(samples=2, tokens=10, loss_tokens=6, positions=12, content=b"x")
    progress.record_update(step=step, loss=loss, learning_rate=0.1, grad_norm=grad_norm, skipped=skipped)


def test_when_to_evaluate_and_save(tmp_path: Path) -> None:
    progress = make_progress(tmp_path)
    assert [step for step in range(11) if progress.evaluation_due(step)] == [0, 3, 7, 10]
    assert [step for step in range(11) if step and progress.save_due(step)] == [5]
    progress.record_heldout_loss(step=3, loss=1.0, seconds=0.1)
    assert not progress.evaluation_due(3) and progress.evaluation_due(7)


def test_save_by_wall_clock_even_if_it_jumps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the monotonic clock counts."""
    progress = make_progress(tmp_path, save_minutes=1.0)
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert not progress.save_due(3)
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert progress.save_due(3) and not progress.save_due(10)
    progress.record_save(0.1)
    assert not progress.save_due(4)


@pytest.mark.parametrize(
    ("loss", "grad_norm"),
    [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf), (-math.inf, 1.0)],
)
def test_a_number_that_is_not_finite_stops_at_once_and_is_written(
    tmp_path: Path, loss: float, grad_norm: float
) -> None:
    """A loss or gradient norm that is NaN or infinite."""
    progress = make_progress(tmp_path)
    with pytest.raises(Diverged, match="step 3"):
        update(progress, 3, loss=loss, grad_norm=grad_norm)
    row = (tmp_path / "losses.csv").read_text().splitlines()[-1].split(",")
    assert row[2] == str(loss) and row[4] == str(grad_norm)


def test_skipped_updates_of_fp16_are_divergence_only_if_they_do_not_end(tmp_path: Path) -> None:
    progress = make_progress(tmp_path)
    for step in range(1, 25):
        update(progress, step, grad_norm=math.inf, skipped=True)
    update(progress, 25)
    with pytest.raises(Diverged, match="25 updates in a row"):
        for step in range(26, 60):
            update(progress, step, grad_norm=math.inf, skipped=True)


def test_state_restores_rows_and_counts(tmp_path: Path) -> None:
    progress = make_progress(tmp_path)
    update(progress, 1)
    update(progress, 2)
    state = json.loads(json.dumps(progress.state()))
    text = progress.losses.path.read_text()
    update(progress, 3)  # done, then lost by a kill
    again = make_progress(tmp_path)
    again.begin(state)
    assert progress.losses.path.read_text() == text
    assert (
        again.totals.samples,
        again.totals.tokens,
        again.totals.loss_tokens,
        again.totals.positions,
    ) == (
        4,
        20,
        12,
        24,
    )
    update(again, 3)
    assert again.totals.order == progress.totals.order
    assert [row.step for row in again.losses.rows] == [1, 2, 3]


def test_each_measurement_is_passed_on(tmp_path: Path) -> None:
    heard = []
    progress = make_progress(tmp_path, on_heldout_loss=lambda step, loss: heard.append((step, loss)))
    progress.record_heldout_loss(step=4, loss=1.5, seconds=0.1)
    assert heard == [(4, 1.5)] and not progress.must_stop(4)


def test_progress_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    progress = make_progress(tmp_path)
    progress.record_heldout_loss(step=0, loss=2.5, seconds=0.1)
    for step in range(1, 11):
        update(progress, step)
    progress.record_heldout_loss(step=10, loss=1.25, seconds=0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("[r] step 0/10 held-out 2.5000 |") and len(lines) == 2  # not one for every step
    assert lines[1].startswith("[r] step 10/10 loss 1.0000 held-out 1.2500 |") and lines[1].endswith("s left")


def test_the_seconds_left_are_of_updates_and_measurements_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten updates of 2 s, measurements of 30 s at 0, 3, 7 and 10, the first taken from another job."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = make_progress(tmp_path)
    progress.record_heldout_loss(step=0, loss=2.5, seconds=0.0)
    progress.expect_evaluation(30.0)
    for step in range(1, 4):
        now += 2.0
        update(progress, step)
        progress.report(final=True)
    now += 30.0
    progress.record_heldout_loss(step=3, loss=2.0, seconds=30.0)
    progress.report(final=True)
    left = [line.rpartition(", ")[2] for line in capsys.readouterr().err.splitlines()]
    assert left[0] == "starting" and left[1:] and left[-1] == "74 s left"
    assert "108 s left" in left and "104 s left" in left
    for step in range(4, 8):
        now += 2.0
        update(progress, step)
    now += 20.0
    progress.record_heldout_loss(step=7, loss=1.5, seconds=20.0)
    progress.report(final=True)
    assert capsys.readouterr().err.splitlines()[-1].endswith(", 26 s left"), "as long as the newest measurement"


def test_the_slow_first_update_of_a_session_says_nothing_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = make_progress(tmp_path)
    for step, seconds in ((1, 10.0), (2, 2.0)):
        now += seconds
        update(progress, step)
        progress.report(final=True)
    left = [line.rpartition(", ")[2] for line in capsys.readouterr().err.splitlines()]
    assert (left[-2], left[-1]) == ("90 s left", "16 s left")


def test_last_position_ignores_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    assert last_position(path) == (0, 0.0)
    path.write_text(",".join(COLUMNS) + "\n")
    assert last_position(path) == (0, 0.0)
    progress = make_progress(tmp_path)
    update(progress, 1)
    seconds = progress.losses.rows[-1].seconds
    with open(path, "a") as file:
        file.write("2,train,0.")
    assert last_position(path) == (1, seconds)
