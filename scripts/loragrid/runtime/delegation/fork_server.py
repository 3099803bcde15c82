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
import os
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

from loragrid.runtime.delegation.server import Child, JobServer
from loragrid.runtime.delegation.transfer import ANSWER, take_over

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


class ForkServer(JobServer):
    """Forks a child for each job."""

    def begin(self, job: dict[str, Any], descriptors: list[int], connection: socket.socket) -> dict | None:
        """Fork for a job; return the job in the child, None in the server."""
        _import_libraries(Path(job["argv"][0]).stem)
        if _uses_cuda():
            connection.close()  # the client then does the job itself
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        gc.freeze()  # imported objects stay in memory pages that all children share
        sys.stdout.flush(), sys.stderr.flush()
        process = os.fork()
        if process == 0:
            self._become(job, descriptors, connection)
            return job
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            connection.sendall(ANSWER.pack(process))
        child = Child(process, os.pidfd_open(process), None)
        self.add_child(child)
        self.watch(child, connection)
        return None

    def _become(self, job: dict, descriptors: list[int], connection: socket.socket) -> None:
        """In the child: close what is the server's, and take the job over."""
        for held in (self.listener, connection, *(child.client for child in self.clients.values())):
            held.close()
        for descriptor in (self.owner, *self.children):
            os.close(descriptor)
        take_over(job, descriptors)
        # The server's own modules may be those of another checkout.
        for name in [name for name in sys.modules if name.split(".")[0] == "loragrid"]:
            del sys.modules[name]


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
    job = ForkServer(folder, int((folder / "owner").read_text())).serve()
    if job is not None:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
