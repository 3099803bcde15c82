"""A warm interpreter for the jobs of one local run: libraries are imported once, and each job is forked from there.

Importing torch, transformers and TRL takes longer than training a small model. So the workflow names a folder in the
variable below; the first job starts a server there, which imports what a stage needs when it is first asked for that stage,
and forks for every job. The job's own process, which Snakemake watches, waits for its twin: it passes signals on, ends as
the twin ends, and takes the twin along when it is killed. The server goes when its owner has gone, the main snakemake, whose
process id the file `owner` holds. Where there is no such folder or no server, a stage runs in its own process.

The twin gets the job's arguments, environment, working directory, umask, process group, stdin, stdout and stderr, and
imports the project's own modules itself. Needs Linux (pidfd).
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

VARIABLE = "LORAGRID_WARM"
# What a stage's process has imported when its real work begins; a library that is missing is left to the job to complain of.
LIBRARIES = {
    "prepare_data": ("transformers", "pyarrow.parquet"),
    "train": ("datasets", "transformers.models.auto.modeling_auto", "peft", "trl.trainer.sft_trainer"),
    "score": (
        *("datasets", "pandas", "pyarrow.parquet", "transformers.models.auto.modeling_auto", "peft"),
        *("lm_eval.evaluator", "lm_eval.models.huggingface", "lm_eval.tasks", "rouge_score.rouge_scorer"),
    ),
}
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ANSWER = struct.Struct("i")  # first the twin's process id, in the end its exit status as waitpid gives it
STARTS_WITHIN_SECONDS = 10.0


def hand_over() -> None:
    """Let a warm twin do this process's job and end as it ends; returns where there is no server for it."""
    folder, stage = os.environ.get(VARIABLE), Path(sys.argv[0]).stem
    if not folder or stage not in LIBRARIES:
        return
    connection = _connect(Path(folder))
    if connection is None:
        return
    umask = os.umask(0)
    os.umask(umask)
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    job = {"argv": sys.argv, "environment": environment, "cwd": os.getcwd(), "umask": umask, "group": os.getpgrp()}
    message = json.dumps(job).encode()
    socket.send_fds(connection, [len(message).to_bytes(4, "big")], [0, 1, 2])
    connection.sendall(message)
    twin = _answer(connection)
    if twin is None:
        return  # the server is leaving; nothing was begun

    def forward(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(twin, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    status = _answer(connection)
    if status is None:
        os.kill(twin, signal.SIGKILL)
        raise SystemExit(f"failed: the warm interpreter of {folder} was killed: run the same command again")
    _end_like(status)


def _connect(folder: Path) -> socket.socket | None:
    """A connection to the folder's server, started if there is none yet; None if it cannot be had."""
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
    """Start the server, once, and wait until it listens. An owner that is gone has no folder any more: OSError."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "socket").exists():
            return
        with open(folder / "server.log", "a") as log:
            subprocess.Popen(
                [sys.executable, "-P", __file__, str(folder)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
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


def _end_like(status: int) -> None:
    """End this process with the exit status, or by the signal, that ended its twin."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError):  # SIGKILL has no handler to be put back
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    raise SystemExit(os.WEXITSTATUS(status))


class Server:
    """Listens in `folder` for jobs until the process `owner` is gone and the last twin has ended."""

    def __init__(self, folder: Path, owner: int) -> None:
        self.folder = folder
        self.owner = os.pidfd_open(owner)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "socket"))
        self.listener.listen()
        self.poll = select.poll()
        for descriptor in (self.owner, self.listener.fileno()):
            self.poll.register(descriptor, select.POLLIN)
        # Twin's process descriptor, and connection's: each → (process id, connection).
        self.twins: dict[int, tuple[int, socket.socket]] = {}
        self.waiting: dict[int, tuple[int, socket.socket]] = {}

    def serve(self) -> dict | None:
        """Serve to the end and return None; in a twin, return its job."""
        for number in FORWARDED:
            signal.signal(number, signal.SIG_IGN)  # sent to the whole group they are meant for the jobs
        while self.owner >= 0 or self.twins:
            for descriptor, _ in self.poll.poll():
                if descriptor == self.owner:
                    self._leave()
                elif descriptor == self.listener.fileno():
                    if (job := self._take()) is not None:
                        return job
                elif descriptor in self.twins:
                    self._twin_ended(descriptor)
                elif descriptor in self.waiting:
                    os.kill(self.waiting[descriptor][0], signal.SIGKILL)  # nobody waits for it any more
                    self.poll.unregister(descriptor)
        return None

    def _leave(self) -> None:
        self.poll.unregister(self.owner)
        self.poll.unregister(self.listener.fileno())
        shutil.rmtree(self.folder, ignore_errors=True)
        self.owner = -1

    def _take(self) -> dict | None:
        """Fork for the job that a client brings; its job in the twin, None in the server."""
        connection, _ = self.listener.accept()
        try:
            head, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
            job = json.loads(_read(connection, int.from_bytes(head, "big")))
        except (OSError, ValueError):
            connection.close()  # the client died on its way
            return None
        _import_libraries(Path(job["argv"][0]).stem)
        gc.freeze()  # what is imported stays shared between the twins
        sys.stdout.flush(), sys.stderr.flush()
        twin = os.fork()
        if twin == 0:
            self._become(job, descriptors, connection)
            return job
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            connection.sendall(ANSWER.pack(twin))
        process = os.pidfd_open(twin)
        self.twins[process] = self.waiting[connection.fileno()] = (twin, connection)
        self.poll.register(process, select.POLLIN)
        self.poll.register(connection.fileno(), select.POLLIN | select.POLLHUP)
        return None

    def _twin_ended(self, process: int) -> None:
        twin, connection = self.twins.pop(process)
        _, status = os.waitpid(twin, 0)
        with contextlib.suppress(OSError):
            connection.sendall(ANSWER.pack(status))
        self.poll.unregister(process)
        with contextlib.suppress(KeyError):  # taken out before, if its client was gone
            self.poll.unregister(connection.fileno())
        del self.waiting[connection.fileno()]
        connection.close()
        os.close(process)

    def _become(self, job: dict, descriptors: list[int], connection: socket.socket) -> None:
        """In the twin: take the job's place."""
        for held in (self.listener, connection, *(connection for _, connection in self.twins.values())):
            held.close()
        for descriptor in (self.owner, *self.twins):
            os.close(descriptor)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        for number in FORWARDED:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        with contextlib.suppress(OSError):  # a client that is gone takes its group along
            os.setpgid(0, job["group"])  # so that what is sent to the job's group reaches the twin at once
        os.environ.clear()
        os.environ.update(job["environment"])
        os.umask(job["umask"])
        os.chdir(job["cwd"])


def _read(connection: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            raise OSError("the client is gone")
        content += part
    return bytes(content)


def _import_libraries(stage: str) -> None:
    for name in LIBRARIES.get(stage, ()):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def main() -> None:
    """Serve; as a twin, run the job's script as if it had been started from the command line."""
    folder = Path(sys.argv[1])
    job = Server(folder, int((folder / "owner").read_text())).serve()
    if job is not None:
        sys.argv = job["argv"]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
