"""A fork server for the jobs of one local run: libraries are imported once, and the processes that do the jobs are
forked from there.

Importing torch, transformers and TRL takes longer than training a small model. The workflow
therefore names a folder in an environment variable. The first job starts a server in that folder;
the server imports the libraries of a stage when a job first asks for that stage, and forks one
child per job. Train and score jobs are handed to resident workers, which are forked like that too, if the folder has
the file `resident`: each holds its base and its tasks for the next job. The job's own process, which Snakemake watches,
waits for its child: it forwards signals, exits as the child exits, and takes the child with it when it is killed. The
server exits once its owner has exited: the main snakemake, whose process id is in the file `owner`. Without a
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
import os
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

from loragrid.runtime.delegation import worker as worker_program
from loragrid.runtime.delegation.pool_workers import JobKind, Worker
from loragrid.runtime.delegation.server import Child
from loragrid.runtime.delegation.transfer import ANSWER, take_over
from loragrid.runtime.delegation.worker_pool import WorkerPool

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
# Named so in the folder by the workflow: the stages' jobs are done by workers that stay for the next one.
RESIDENT, RESIDENT_STAGES = "resident", ("train", "score")
# On a CPU every worker can do every job.
ANY_KIND = JobKind("plain", "plain", "any", alone=False)


class Forked(BaseException):
    """In a new worker: leaves the server's code, for the end of `channel`."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__()
        self.channel = channel


class ForkServer(WorkerPool):
    """Forks a child for each job, or a worker for many."""

    def read_kinds(self) -> dict[str, Any]:
        """Nothing: all jobs are of one kind."""
        return {}

    def begin(self, job: dict[str, Any], descriptors: list[int], connection: socket.socket) -> dict | None:
        """Begin a job; return it in a child that was forked for it, None in the server. Raises `Forked` in a worker."""
        stage = Path(job["argv"][0]).stem
        if stage in RESIDENT_STAGES and (self.folder / RESIDENT).exists():
            try:
                return super().begin(job, descriptors, connection)
            except Forked:
                self._leave_server(connection, job["import_path"])
                for descriptor in descriptors:
                    os.close(descriptor)
                raise
        process = _fork(stage)
        if process == 0:
            self._leave_server(connection, job["import_path"])
            take_over(job, descriptors)
            return job
        for descriptor in descriptors:
            os.close(descriptor)
        if process is None:
            connection.close()  # the client then does the job itself
            return None
        with contextlib.suppress(OSError):
            connection.sendall(ANSWER.pack(process))
        child = Child(process, os.pidfd_open(process), None)
        self.add_child(child)
        self.watch(child, connection)
        return None

    def kind_of(self, argv: list[str]) -> JobKind | None:
        """The only kind."""
        return ANY_KIND

    def new_worker(self, job: dict[str, Any], fixed: tuple) -> Worker:
        """A worker with the libraries of its first job's stage; raises OSError where it would find a GPU."""
        ours, theirs = socket.socketpair()
        process = _fork(Path(job["argv"][0]).stem)
        if process == 0:
            ours.close()
            raise Forked(theirs)
        theirs.close()
        if process is None:
            ours.close()
            raise OSError("a process that has used a GPU cannot be forked")
        return Worker(process, os.pidfd_open(process), None, ours, fixed)

    def _leave_server(self, connection: socket.socket, import_path: list[str]) -> None:
        """In a child: close what is the server's, and forget its modules, which may be those of another checkout."""
        channels = [worker.channel for _, worker in self.workers.values()]
        for held in (self.listener, connection, *(child.client for child in self.clients.values()), *channels):
            held.close()
        for descriptor in (self.owner, *self.children):
            os.close(descriptor)
        sys.path[:] = import_path
        for name in [name for name in sys.modules if name.split(".")[0] == "loragrid"]:
            del sys.modules[name]


def _fork(stage: str) -> int | None:
    """Import a stage's libraries and fork: the child's process, 0 in the child; None where a child would find a GPU."""
    _import_libraries(stage)
    if _uses_cuda():
        return None
    gc.freeze()  # imported objects stay in memory pages that all children share
    sys.stdout.flush(), sys.stderr.flush()
    return os.fork()


def _import_libraries(stage: str) -> None:
    for name in LIBRARIES.get(stage, ()):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _uses_cuda() -> bool:
    """Whether this process has a GPU: importing peft asks for it, and a child forked afterwards cannot use it."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available()


def main() -> None:
    """Serve; in a child, run the job as if it had been started from the command line; in a worker, its jobs."""
    folder, job, channel = Path(sys.argv[1]), None, None
    try:
        job = ForkServer(folder, int((folder / "owner").read_text())).serve()
    except Forked as forked:
        channel = forked.channel
    # Outside of the handler, so that no job's traceback has the server in it.
    if channel is not None:
        importlib.import_module(worker_program.__name__).stay_and_serve(channel)
    elif job is not None:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
