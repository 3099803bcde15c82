"""A fork server for the jobs of one local run: libraries are imported once, and each job is forked
from there.

Importing torch, transformers and TRL takes longer than training a small model. The workflow
therefore names a folder in an environment variable. The first job starts a server in that folder;
the server imports the libraries of a stage when a job first asks for that stage, and forks one
child per job. The job's own process, which Snakemake watches, waits for its child: it forwards
signals, exits as the child exits, and takes the child with it when it is killed. The server exits
once its owner has exited: the main snakemake, whose process id is in the file `owner`. Without a
folder or a server, a stage runs in its own process.

A child takes over the job's arguments, environment, working directory, umask, process group, import
path, stdin, stdout and stderr, and imports the project's own modules itself. Written by hand
because multiprocessing's fork server serves one Python program and not the separate commands that
Snakemake starts. Needs Linux (pidfd). Never used with CUDA, because a process forked after CUDA was
initialised cannot use it: the workflow starts no server where a GPU is used, and a server that finds one
forks nothing.
"""

import contextlib
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
import sys
from pathlib import Path

# What a stage has imported when its real work begins. A missing library is left for the job to
# report.
LIBRARIES = {
    "prepare_data": ("transformers", "pyarrow.parquet"),
    "find_contamination": ("datasets", "pyarrow.parquet", "lm_eval.tasks"),
    "train": ("datasets", "transformers.models.auto.modeling_auto", "peft", "trl.trainer.sft_trainer"),
    "score": (
        *("datasets", "pandas", "pyarrow.parquet", "transformers.models.auto.modeling_auto", "peft"),
        *("lm_eval.evaluator", "lm_eval.models.huggingface", "lm_eval.tasks", "rouge_score.rouge_scorer"),
    ),
}
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# First the child's process id, at the end its exit status as waitpid gives it.
ANSWER = struct.Struct("i")


class Server:
    """Listens in `folder` for jobs until the process `owner` and the last child have exited."""

    def __init__(self, folder: Path, owner: int) -> None:
        self.folder = folder
        self.owner = os.pidfd_open(owner)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "socket"))
        self.listener.listen()
        self.poll = select.poll()
        for descriptor in (self.owner, self.listener.fileno()):
            self.poll.register(descriptor, select.POLLIN)
        # By the child's process descriptor, and by its connection's: (process id, connection).
        self.children: dict[int, tuple[int, socket.socket]] = {}
        self.waiting: dict[int, tuple[int, socket.socket]] = {}

    def serve(self) -> dict | None:
        """Serve to the end and return None; in a child, return its job."""
        for number in FORWARDED:
            # A signal to the whole process group is meant for the jobs.
            signal.signal(number, signal.SIG_IGN)
        while self.owner >= 0 or self.children:
            for descriptor, _ in self.poll.poll():
                if descriptor == self.owner:
                    self._leave()
                elif descriptor == self.listener.fileno():
                    if (job := self._take()) is not None:
                        return job
                elif descriptor in self.children:
                    self._child_exited(descriptor)
                elif descriptor in self.waiting:
                    # The job's own process was killed, so its child must not go on.
                    os.kill(self.waiting[descriptor][0], signal.SIGKILL)
                    self.poll.unregister(descriptor)
        return None

    def _leave(self) -> None:
        self.poll.unregister(self.owner)
        self.poll.unregister(self.listener.fileno())
        shutil.rmtree(self.folder, ignore_errors=True)
        self.owner = -1

    def _take(self) -> dict | None:
        """Fork for the job that a client sends; return the job in the child, None in the server."""
        connection, _ = self.listener.accept()
        try:
            head, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
            job = json.loads(_read(connection, int.from_bytes(head, "big")))
        except (OSError, ValueError):
            connection.close()  # the client died while sending
            return None
        _import_libraries(Path(job["argv"][0]).stem)
        if _uses_cuda():
            connection.close()  # the client then does the job itself
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        gc.freeze()  # imported objects stay in memory pages that all children share
        sys.stdout.flush(), sys.stderr.flush()
        child = os.fork()
        if child == 0:
            self._become(job, descriptors, connection)
            return job
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            connection.sendall(ANSWER.pack(child))
        process = os.pidfd_open(child)
        self.children[process] = self.waiting[connection.fileno()] = (child, connection)
        self.poll.register(process, select.POLLIN)
        self.poll.register(connection.fileno(), select.POLLIN | select.POLLHUP)
        return None

    def _child_exited(self, process: int) -> None:
        child, connection = self.children.pop(process)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(OSError):
            connection.sendall(ANSWER.pack(status))
        self.poll.unregister(process)
        with contextlib.suppress(KeyError):  # removed already if its client was killed
            self.poll.unregister(connection.fileno())
        del self.waiting[connection.fileno()]
        connection.close()
        os.close(process)

    def _become(self, job: dict, descriptors: list[int], connection: socket.socket) -> None:
        """In the child: take over everything that makes this process the job's."""
        for held in (self.listener, connection, *(connection for _, connection in self.children.values())):
            held.close()
        for descriptor in (self.owner, *self.children):
            os.close(descriptor)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        for number in FORWARDED:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        with contextlib.suppress(OSError):  # the client's group is gone with the client
            os.setpgid(0, job["group"])  # a signal to the job's group reaches the child directly
        os.environ.clear()
        os.environ.update(job["environment"])
        os.umask(job["umask"])
        os.chdir(job["cwd"])
        # The job may belong to another checkout than the one that started the server.
        sys.path[:] = job["import_path"]


def _read(connection: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            raise OSError("the client has exited")
        content += part
    return bytes(content)


def _import_libraries(stage: str) -> None:
    for name in LIBRARIES.get(stage, ()):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _uses_cuda() -> bool:
    """Whether this process has a GPU: importing peft asks for it, and a child forked afterwards cannot use it."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available()


def main() -> None:
    """Serve; in a child, run the job's script as if it had been started from the command line."""
    folder = Path(sys.argv[1])
    job = Server(folder, int((folder / "owner").read_text())).serve()
    if job is not None:
        sys.argv = job["argv"]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
