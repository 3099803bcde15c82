"""Stop signals and the session clock."""

import argparse
import io
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.runtime.session import (
    SessionClock,
    StopSignals,
    add_session_options,
    ctrl_c_ends_within,
    session_end,
    session_seconds,
)


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


ONE_LONG_OPERATION = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)"
MANY_SHORT_ONES = "while True: pass"


@pytest.mark.parametrize("work", [ONE_LONG_OPERATION, MANY_SHORT_ONES])
def test_ctrl_c_ends_a_job_soon_also_within_one_long_operation(work: str) -> None:
    """Twice the signal, as from a terminal and from snakemake, is one line and one exit status.

    The job takes the signal even where the tests run in the background of a shell, which ignores it.
    """
    program = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from loragrid.errors import run_main\nfrom loragrid.runtime.session import ctrl_c_ends_within\n"
        "def main():\n    with ctrl_c_ends_within(0.2):\n        print('begun', flush=True)\n        exec(%r)\nrun_main(main)"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    job = subprocess.Popen([sys.executable, "-c", program % work], **pipes)
    assert job.stdout.readline() == "begun\n"
    for _ in range(2):
        job.send_signal(signal.SIGINT)
    try:
        _, said = job.communicate(timeout=30)
    finally:
        job.kill()
    assert (job.returncode, said) == (130, "stopped by Ctrl-C\n")


@pytest.fixture
def own_ctrl_c() -> Iterator[None]:
    """Python's own handler, which a process in the background of a shell lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_after_the_block_ctrl_c_is_python_s_own_again(own_ctrl_c: None) -> None:
    with ctrl_c_ends_within(5):
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
