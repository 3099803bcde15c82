"""How a job moves to the process that does it: one message with the job's surroundings and its output descriptors."""

import contextlib
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# To a client: first the id of the process that does the job, at the end its exit status as waitpid gives it.
ANSWER = struct.Struct("i")


def send_job(connection: socket.socket, job: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Send a job with its stdin, stdout and stderr."""
    message = json.dumps(job).encode()
    head = len(message).to_bytes(4, "big")
    if descriptors:
        socket.send_fds(connection, [head], descriptors)
    else:
        connection.sendall(head)
    connection.sendall(message)


def receive_job(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next job and its descriptors; None if the sender has exited or closed the connection."""
    try:
        head, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
        for descriptor in descriptors:
            # Otherwise a process that is started next would keep the job's output open.
            os.set_inheritable(descriptor, False)
        head += _read(connection, 4 - len(head))
        return json.loads(_read(connection, int.from_bytes(head, "big"))), descriptors
    except (OSError, ValueError):
        return None


def receive_answer(connection: socket.socket) -> int | None:
    """The next answer; None if the other side has exited."""
    try:
        return ANSWER.unpack(_read(connection, ANSWER.size))[0]
    except OSError:
        return None


def own_surroundings(*, without: Sequence[str]) -> dict[str, Any]:
    """The command line and surroundings of this process as a job, `without` some environment variables."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "argv": sys.argv,
        "environment": {key: value for key, value in os.environ.items() if key not in without},
        "import_path": sys.path,
        "cwd": os.getcwd(),
        "umask": umask,
        "group": os.getpgrp(),
    }


def take_over(job: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Make this process the job's: output, signals, process group, environment, umask, folder, import path."""
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    for number in FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError):  # the client's group is gone with the client
        os.setpgid(0, job["group"])  # a signal to the job's group reaches this process directly
    os.environ.clear()
    os.environ.update(job["environment"])
    os.umask(job["umask"])
    os.chdir(job["cwd"])
    # The job may belong to another checkout than the one that started the server.
    sys.path[:] = job["import_path"]
    sys.argv = job["argv"]


def _read(connection: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            raise OSError("the other side has exited")
        content += part
    return bytes(content)
