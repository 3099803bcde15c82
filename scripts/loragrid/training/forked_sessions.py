"""Sessions of a run as forks of this process, which cost no imports."""

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from loragrid.errors import Failed
from loragrid.runtime.delegation import residency, worker
from loragrid.runtime.delegation.client import FORK_SERVER, WORKERS
from loragrid.runtime.delegation.transfer import own_surroundings, send_job

POLL_SECONDS = 0.0005


def sleep_while(child: int, out: Path, waiting: Callable[[], bool]) -> bool:
    """Sleep while `waiting()`; False as soon as the session has ended by itself."""
    while waiting():
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            check_status(status, out)
            return False
        time.sleep(POLL_SECONDS)
    return True


def _log(out: Path) -> Path:
    return out.with_name(f"{out.name}.log")


def fork_session(train: Callable[[Path], None], out: Path) -> int:
    """Start a session in a process group of its own; returns its process id.

    Its output goes to a log beside `out`.
    """
    # Otherwise the child would write what is buffered here a second time.
    sys.stdout.flush()
    sys.stderr.flush()
    log = _log(out)
    log.parent.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        # Parent and child both set the group, so that it exists whoever runs first. The call fails
        # if the child has ended already.
        with suppress(OSError):
            os.setpgid(child, child)
        return child
    status = 1
    try:
        os.setpgid(0, 0)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        train(out)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Never back into the caller's stack: its files and tests belong to the parent.
        os._exit(status)


def do_as_worker(jobs: Sequence[Sequence[str]]) -> None:
    """Do stages, each by its command line, one after another, as a resident worker does, in this process."""
    residency.stay()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for arguments in jobs:
            surroundings = own_surroundings(without=(WORKERS, FORK_SERVER))
            send_job(ours, surroundings | {"argv": list(arguments)}, (0, 1, 2))
        # A worker ends when nothing more can come.
        ours.shutdown(socket.SHUT_WR)
        worker.serve(theirs)


def wait_for_session(child: int, out: Path) -> None:
    """Wait for a session's end; raises `Failed` if its status is not 0."""
    check_status(os.waitpid(child, 0)[1], out)


def check_status(status: int, out: Path) -> None:
    """Raise `Failed` with the last line of the session's log unless its wait status is 0."""
    if status:
        log = _log(out).read_text(encoding="utf-8", errors="replace").strip()
        code, last = os.waitstatus_to_exitcode(status), log.splitlines()[-1:]
        raise Failed(f"{out}: a session ended by itself with status {code}: {last}")
