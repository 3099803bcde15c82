"""The worker processes of a pool and their places: starting one, and asking it to free its memory or to end."""

import contextlib
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loragrid.runtime.delegation import worker as worker_program
from loragrid.runtime.delegation.server import Child
from loragrid.runtime.delegation.transfer import receive_answer, send_job
from loragrid.runtime.visible_gpus import VARIABLE

ENDS_WITHIN_SECONDS = 20.0
# Variables that libraries read when they are imported: a process cannot change them later.
READ_AT_START = ("OMP_NUM_THREADS", VARIABLE)


@dataclass(frozen=True)
class JobKind:
    """What a job needs: jobs of one `family` and `kind` can share a process, those of one `base` its weights.

    `alone`: the card has no room for another process beside it.
    """

    family: str
    kind: str
    base: str
    alone: bool


@dataclass(eq=False)
class Worker(Child):
    """A worker's process, which does jobs that were `fixed_at_start` like its first one.

    `base`: what it may hold, empty for nothing; `begun`: whether it has taken its job over.
    """

    channel: socket.socket
    fixed: tuple
    base: str = ""
    begun: bool = False
    idle_since: float = 0.0


@dataclass(eq=False)
class Place:
    """Where one job runs at a time: the card, None for the only one, its lock, and the workers by family."""

    device: str | None
    lock: int | None
    workers: dict[str, Worker] = field(default_factory=dict)

    def is_busy(self) -> bool:
        """Whether a job runs here."""
        return any(worker.client for worker in self.workers.values())


def fixed_at_start(job: dict[str, Any], kind: JobKind) -> tuple:
    """What a process cannot change for a later job: its kind, variables that libraries read at import, the code."""
    environment, script = job["environment"], Path(job["argv"][0]).resolve()
    code = []
    for file in sorted(script.parent.rglob("*.py")):
        state = file.stat()
        code.append((str(file), state.st_mtime_ns, state.st_size))
    return kind.kind, tuple(environment.get(name) for name in READ_AT_START), tuple(code)


def start_worker(job: dict[str, Any], fixed: tuple) -> Worker:
    """A worker with the environment of its first job, which it has not been sent yet."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.set_inheritable(True)
        command = [sys.executable, "-P", "-m", worker_program.__name__, str(theirs.fileno())]
        # The package of this process, which is that of the first job.
        environment = job["environment"] | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        process = os.posix_spawn(sys.executable, command, environment)
    return Worker(process, os.pidfd_open(process), None, ours, fixed)


def release(worker: Worker) -> bool:
    """Let an idle worker free its base; False if it does not answer."""
    if not worker.base:
        return True
    worker.base = ""
    with contextlib.suppress(OSError):
        send_job(worker.channel, {}, [])
        if select.select([worker.channel], [], [], ENDS_WITHIN_SECONDS)[0]:
            return receive_answer(worker.channel) is not None
    return False


def dismiss(worker: Worker) -> None:
    """Tell an idle worker to end, without waiting for it."""
    with contextlib.suppress(OSError):
        worker.channel.shutdown(socket.SHUT_WR)
    worker.idle_since = time.monotonic()


def end(worker: Worker) -> None:
    """Tell an idle worker to end and wait until it can be reaped; one that hangs is killed."""
    dismiss(worker)
    if not select.select([worker.descriptor], [], [], ENDS_WITHIN_SECONDS)[0]:
        os.kill(worker.process, signal.SIGKILL)
