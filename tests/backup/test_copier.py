"""Copying in the background: one at a time, the newest next, and no error ends it."""

import threading
from pathlib import Path

from loragrid.backup.copier import Copier, CopyJob


def job(name: str, copy, done=lambda seconds: None, failed=lambda error: None) -> CopyJob:
    return CopyJob(folder=Path(name), copy=copy, done=done, failed=failed)


def test_a_newer_job_takes_the_place_of_one_that_waits() -> None:
    copied, go, began, seconds = [], threading.Event(), threading.Event(), []

    def slow() -> None:
        began.set()
        go.wait()
        copied.append("1")

    copier = Copier()
    copier.submit(job("1", slow, done=seconds.append))
    assert began.wait(60)
    for name in ("2", "3"):
        copier.submit(job(name, lambda name=name: copied.append(name), done=seconds.append))
    assert copier.in_use == (Path("1"), Path("3")) and not copier.wait(0)
    go.set()
    assert copier.wait(60) and copied == ["1", "3"] and copier.in_use == ()
    assert len(seconds) == 2 and all(value >= 0 for value in seconds)


def test_a_failed_copy_is_reported_and_the_next_one_made() -> None:
    errors, copied = [], []
    copier = Copier()
    copier.submit(job("1", lambda: 1 / 0, failed=errors.append))
    assert copier.wait(60) and [type(error) for error in errors] == [ZeroDivisionError]
    copier.submit(job("2", lambda: copied.append("2")))
    assert copier.wait(60) and copied == ["2"]
