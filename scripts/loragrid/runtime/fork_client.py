"""A stage's side of the fork server: it sends the job and waits for the child that runs it."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from loragrid.runtime import fork_server
from loragrid.runtime.fork_server import ANSWER, FORWARDED, LIBRARIES

FOLDER_VARIABLE = "LORAGRID_WARM"
STARTS_WITHIN_SECONDS = 10.0


def delegate_to_fork_server() -> None:
    """Let a child of the fork server do this process's job and exit with its status; return if there is no server."""
    folder, stage = os.environ.get(FOLDER_VARIABLE), Path(sys.argv[0]).stem
    if not folder or stage not in LIBRARIES:
        return
    connection = _connect(Path(folder))
    if connection is None:
        return
    umask = os.umask(0)
    os.umask(umask)
    environment = {key: value for key, value in os.environ.items() if key != FOLDER_VARIABLE}
    job = {
        "argv": sys.argv,
        "environment": environment,
        "import_path": sys.path,
        "cwd": os.getcwd(),
        "umask": umask,
        "group": os.getpgrp(),
    }
    message = json.dumps(job).encode()
    socket.send_fds(connection, [len(message).to_bytes(4, "big")], [0, 1, 2])
    connection.sendall(message)
    child = _answer(connection)
    if child is None:
        return  # the server is exiting and has not begun the job

    def forward(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just exited
            os.kill(child, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    status = _answer(connection)
    if status is None:
        os.kill(child, signal.SIGKILL)
        raise SystemExit(f"failed: the fork server in {folder} was killed. Fix: run the same command again.")
    _exit_like(status)


def _connect(folder: Path) -> socket.socket | None:
    """A connection to the folder's server, started if there is none yet; None if that fails."""
    for attempt in (1, 2):
        with contextlib.suppress(OSError):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(folder / "socket"))
            return connection
        with contextlib.suppress(OSError):
            if attempt == 1:
                _start(folder)
    return None


def _start(folder: Path) -> None:
    """Start the server, once, and wait until it listens. OSError if the owner has exited and its
    folder is gone."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "socket").exists():
            return
        with open(folder / "server.log", "a") as log:
            subprocess.Popen(
                [sys.executable, "-P", fork_server.__file__, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        until = time.monotonic() + STARTS_WITHIN_SECONDS
        while not (folder / "socket").exists() and time.monotonic() < until:
            time.sleep(0.01)


def _answer(connection: socket.socket) -> int | None:
    content = b""
    while len(content) < ANSWER.size:
        part = connection.recv(ANSWER.size - len(content))
        if not part:
            return None
        content += part
    return ANSWER.unpack(content)[0]


def _exit_like(status: int) -> None:
    """Exit with the exit status, or by the signal, that ended the child."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError):  # SIGKILL has no handler to restore
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    raise SystemExit(os.WEXITSTATUS(status))
