"""A stage's side of the servers of jobs: it sends the job and waits for the process that does it."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from loragrid.paths import SCRIPTS
from loragrid.runtime.delegation import fork_server, worker_pool
from loragrid.runtime.delegation.transfer import FORWARDED, own_surroundings, receive_answer, send_job

# Environment variables that name the folder of a server.
FORK_SERVER, WORKERS = "LORAGRID_WARM", "LORAGRID_WORKERS"
# On a busy machine or a slow drive; a server that fails is noticed at once.
STARTS_WITHIN_SECONDS = 60.0


@dataclass(frozen=True)
class _Server:
    variable: str
    module: str
    stages: Collection[str]


# In the order in which a job asks them.
SERVERS = (
    _Server(WORKERS, worker_pool.__name__, worker_pool.STAGES),
    _Server(FORK_SERVER, fork_server.__name__, fork_server.LIBRARIES),
)


def delegate_job() -> None:
    """Let a process of a server do this process's job and exit with its status; return if no server takes the job."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until `run_main` handles Ctrl-C there is nothing to save, and an exception would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    stage = Path(sys.argv[0]).stem
    for server in SERVERS:
        folder = os.environ.get(server.variable)
        if folder and stage in server.stages:
            _delegate(Path(folder), server.module)


def _delegate(folder: Path, module: str) -> None:
    connection = _connect(folder, module)
    if connection is None:
        return
    job = own_surroundings(without=[server.variable for server in SERVERS])
    try:
        send_job(connection, job, [0, 1, 2])
    except OSError:
        return  # the server is exiting
    child = receive_answer(connection)
    if child is None:
        return  # the server declines the job, or is exiting and has not begun it

    def forward(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just exited
            os.kill(child, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    status = receive_answer(connection)
    if status is None:
        forward(signal.SIGKILL, None)
        raise SystemExit(f"failed: the server of jobs in {folder} was killed. Fix: run the same command again.")
    _exit_like(status)


def _connect(folder: Path, module: str) -> socket.socket | None:
    """A connection to the folder's server, started if there is none yet; None if that fails."""
    for attempt in (1, 2):
        with contextlib.suppress(OSError):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(folder / "socket"))
            return connection
        with contextlib.suppress(OSError):
            if attempt == 1:
                _start(folder, module)
    return None


def _start(folder: Path, module: str) -> None:
    """Start the server, once, and wait until it listens. OSError if the owner has exited and its
    folder is gone."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "socket").exists():
            return
        # This checkout's package, also where nothing is installed.
        search_path = os.pathsep.join([str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        with open(folder / "server.log", "a") as log:
            server = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # A signal to this job's group is not for the server, which has others to serve.
                process_group=0,
                env=os.environ | {"PYTHONPATH": search_path},
            )
        until = time.monotonic() + STARTS_WITHIN_SECONDS
        while not (folder / "socket").exists() and server.poll() is None and time.monotonic() < until:
            time.sleep(0.01)


def _exit_like(status: int) -> None:
    """Exit with the exit status, or by the signal, that ended the child."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError):  # SIGKILL has no handler to restore
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    raise SystemExit(os.WEXITSTATUS(status))
