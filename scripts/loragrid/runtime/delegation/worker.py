"""A resident worker: does the jobs that the pool hands it, one after another, each as in a new process.

The first job imports the libraries and loads the base; the next ones find both. A job that does not succeed ends the
worker with the job's own exit status, so that what it broke, or the memory that it holds, is gone with it.
"""

import contextlib
import gc
import os
import random
import runpy
import signal
import socket
import sys
from typing import Any

from loragrid import errors
from loragrid.runtime.delegation import residency
from loragrid.runtime.delegation.transfer import ANSWER, FORWARDED, receive_job, take_over
from loragrid.runtime.torch_memory import return_freed_memory

# What a worker tells the pool: a job's surroundings are taken over; what it was asked for is done; and so was its last
# job, after which it ends.
BEGUN, DONE, LAST = -1, 0, 1
# Jobs of a process that unsloth has changed keep its variables: they say what it changed.
KEPT_PREFIX = "UNSLOTH"


def serve(channel: socket.socket) -> None:
    """Do what the pool asks for until it closes the channel."""
    log = os.dup(1)
    _ignore_signals()
    while (received := receive_job(channel)) is not None:
        job, descriptors = received
        if not job:
            residency.release_all()
            _free_memory()
            channel.sendall(ANSWER.pack(DONE))
            continue
        _do(job, descriptors, channel)
        _silence(log)
        if residency.is_leaving():
            channel.sendall(ANSWER.pack(LAST))
            return
        # Before the memory is freed: the client has nothing left to wait for.
        channel.sendall(ANSWER.pack(DONE))
        _free_memory()


def _do(job: dict[str, Any], descriptors: list[int], channel: socket.socket) -> None:
    """Do a job as a new process would; a job without success ends this one."""
    kept = {key: value for key, value in os.environ.items() if key.startswith(KEPT_PREFIX)}
    take_over(job, descriptors)
    if "unsloth" in sys.modules:
        os.environ.update(kept)
    _reset_libraries()
    residency.forget_results()
    channel.sendall(ANSWER.pack(BEGUN))
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    _ignore_signals()


def _silence(log: int) -> None:
    """Close the outputs of the job, whose reader waits for that."""
    sys.stdout.flush(), sys.stderr.flush()
    errors.reset_output()
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((null, log, log)):
        os.dup2(source, target)
    os.close(null)
    os.chdir("/")
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # a signal to the last job's group is not for the next one


def _ignore_signals() -> None:
    for number in FORWARDED:
        # Between jobs a signal to the whole process group is meant for snakemake.
        signal.signal(number, signal.SIG_IGN)


def _reset_libraries() -> None:
    """Put what the last job changed for the whole process back to what a new process has."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.seed()
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        # TRL's settings choose it for all later products and convolutions.
        torch.backends.fp32_precision = "none"
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
    if (state := sys.modules.get("accelerate.state")) is not None:
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()
    # Linux: resets the peak of resident memory, which the record of a run holds.
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _free_memory() -> None:
    """Free the memory of the last job, the GPU's included: another process may need it."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return_freed_memory()


def stay_and_serve(channel: socket.socket) -> None:
    """Make this process a resident worker of the pool at the other end of `channel`."""
    residency.stay()
    with channel:
        channel.set_inheritable(False)
        serve(channel)
        # The pool waits for the end of this process, and then gives its memory to another job.
        residency.release_all()


def main() -> None:
    """Serve the pool at the other end of the socket whose descriptor is the only argument."""
    stay_and_serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
