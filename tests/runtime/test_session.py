"""Stop signals and the session clock."""

import argparse
import io
import math
import os
import signal
import sys
import time
from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.runtime.session import SessionClock, StopSignals, add_session_options, session_end, session_seconds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_becomes_a_wish_and_the_old_handler_comes_back(number: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert stop.requested is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # snakemake passes on what the terminal has sent already
        assert stop.requested == signal.Signals(number).name
    assert signal.getsignal(number) is before


def test_a_signal_in_the_middle_of_a_write_is_a_wish_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    class Interrupted(io.RawIOBase):
        interrupted = False

        def writable(self) -> bool:
            return True

        def write(self, content: bytes) -> int:
            if not self.interrupted:
                self.interrupted = True
                os.kill(os.getpid(), signal.SIGTERM)
            return os.write(2, content)

    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(Interrupted()), write_through=True))
    with StopSignals() as stop:
        print("step 3 of 12", file=sys.stderr, flush=True)
    assert stop.requested == "SIGTERM"
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["SIGTERM: saving a checkpoint at the end of this step, then stopping", "step 3 of 12"]


def test_session_limit_leaves_time_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = SessionClock(now + 60)
    clock.record_duration(step=10.0, save=4.0)
    now += 40  # 40 + 12 + 6 + 1 < 60
    assert (clock.elapsed(), clock.left()) == (40, 20)
    assert not clock.too_late(with_evaluation=False) and clock.too_late(loading=1.5)
    clock.record_duration(evaluation=5.0)
    assert clock.too_late(with_evaluation=True) and not clock.too_late(with_evaluation=False)
    clock.record_duration(save=20.0)
    assert clock.too_late(with_evaluation=False)
    assert not SessionClock(None).too_late(with_evaluation=True, loading=1e9)


@pytest.mark.parametrize("minutes", ["abc", "nan", math.nan, math.inf, 0, -5, True, "55"])
def test_a_session_s_length_is_a_number_of_minutes(minutes: Any) -> None:
    with pytest.raises(UserError, match=r"session_minutes: not a number of minutes above 0 .*Fix: set it"):
        session_seconds(minutes, key="session_minutes")


@pytest.mark.parametrize(
    ("given", "study", "left"),
    [([], None, None), ([], 2, 120), (["--session-minutes", "1.5"], 2, 90), (["--session-ends", "1007"], 2, 7)],
)
def test_when_a_session_ends(
    monkeypatch: pytest.MonkeyPatch, given: list[str], study: float | None, left: float | None
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    parser = argparse.ArgumentParser()
    add_session_options(parser)
    ends = session_end(parser.parse_args(given), session_minutes=study)
    assert ends == (None if left is None else 1000 + left)


# --- lock
