"""Starting the ranks of a run, and ending all of them when one ends too early."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from loragrid.errors import EXIT_USER_ERROR, Failed, Paused, UserError, output_options
from loragrid.records.failures import FAILURE_LINES, log_tail, write_failure
from loragrid.records.losses import last_position
from loragrid.runtime.delegation.client import FORK_SERVER, WORKERS
from loragrid.runtime.visible_gpus import VARIABLE, visible_devices
from loragrid.training.ranks.processes import COUNT, FOLDER, RANK, rank_folder

# Status of a rank that ended because another one had.
EXIT_RANK_LOST = 76
# Ranks that make the same mistake end by themselves in this time; the others are ended then.
GRACE_SECONDS = 10.0
POLL_SECONDS = 0.05
FAILURE = "failure.json"
LOOPBACK = Path("/sys/class/net/lo")


class Process(Protocol):
    """The part of `subprocess.Popen` that the launcher uses."""

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""

    def send_signal(self, number: int) -> None:
        """Send a signal if it still runs."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The ranks of a run: how many, the run's folder, and the folder where they meet.

    `output(rank)` is the file with the output of a rank above 0; rank 0 writes where the launcher does.
    """

    run: str
    count: int
    out: Path
    folder: Path

    def output(self, rank: int) -> Path:
        """The output of a rank above 0."""
        return self.folder / f"rank-{rank}.log"

    def environment(self, rank: int) -> dict[str, str]:
        """The environment of a rank, which sees one GPU only: its own."""
        own = {RANK: str(rank), COUNT: str(self.count), FOLDER: str(self.folder)}
        if cards := visible_devices():
            own[VARIABLE] = cards[rank]
        environment = {key: value for key, value in os.environ.items() if key not in (FORK_SERVER, WORKERS)}
        # All ranks are on this machine, so nothing of theirs goes over its network.
        loopback = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), "lo") if LOOPBACK.exists() else {}
        return loopback | environment | own


def launch_ranks(command: Sequence[str], *, run: str, count: int, out: Path) -> None:
    """Train a run by `count` processes of `command`; returns when all of them have finished.

    Raises what `supervise` does.
    """
    with tempfile.TemporaryDirectory(prefix="loragrid-ranks-", ignore_cleanup_errors=True) as folder:
        launch = Launch(run=run, count=count, out=out, folder=Path(folder))
        supervise(launch, lambda rank: _start(command, launch, rank))


def _start(command: Sequence[str], launch: Launch, rank: int) -> Process:
    environment = launch.environment(rank)
    if rank == 0:
        options, terminal = output_options()
        return subprocess.Popen([*command, *options], env=environment, stderr=terminal)
    with launch.output(rank).open("wb") as output:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def supervise(launch: Launch, start: Callable[[int], Process]) -> None:
    """Start all ranks and wait for them. A signal to this process goes to all of them.

    If one ends too early, the others are ended. Raises `SystemExit` with rank 0's status if rank 0 has said why,
    `Failed` with the line of another rank, and `Paused` for a signal that came before they could save.
    """
    for rank in range(1, launch.count):
        rank_folder(rank, launch.folder).mkdir(parents=True)
    processes: list[Process] = []
    try:
        with _forwarding(processes) as received:
            for rank in range(launch.count):
                processes.append(start(rank))
                # A signal that came before this rank existed.
                for number in received:
                    processes[-1].send_signal(number)
            statuses = _wait(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
    # Rank 0 ends well only after it has written everything.
    if statuses[0] != 0:
        _raise_for(launch, statuses, received)


@contextmanager
def _forwarding(processes: list[Process]) -> Iterator[list[int]]:
    """Pass SIGTERM and SIGINT on to the processes; yields those that came."""
    received: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        for process in processes:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[Process]) -> list[int | None]:
    """The status of each process, None for one that had to be ended because another one had."""
    statuses = [process.poll() for process in processes]
    ended_at: float | None = None
    while None in statuses:
        # Once rank 0 has ended, nothing is left to do for the others.
        if ended_at is None and (any(statuses) or statuses[0] is not None):
            ended_at = time.monotonic()
        if ended_at is not None and time.monotonic() - ended_at > GRACE_SECONDS:
            break
        time.sleep(POLL_SECONDS)
        statuses = [process.poll() for process in processes]
    return statuses


def _raise_for(launch: Launch, statuses: Sequence[int | None], received: Sequence[int]) -> None:
    """Raise for the rank that ended first by itself; rank 0 if it is among them."""
    own = {rank: status for rank, status in enumerate(statuses) if status not in (None, 0, EXIT_RANK_LOST)}
    signalled = {-number for number in received}
    if own.get(0, 0) > 0:
        # It has printed its line and written the run's failure.json.
        raise SystemExit(own[0])
    if own and set(own.values()) <= signalled:
        raise Paused(f"run {launch.run} paused before it began (stopped by a signal), run the same command to go on")
    for rank, status in own.items():
        raise _failure_of(launch, rank, status)
    raise Failed(f"run {launch.run}: its {launch.count} processes lost each other. Fix: run the same command again.")


def _failure_of(launch: Launch, rank: int, status: int) -> BaseException:
    """What the launcher raises for a rank that failed; the run's failure.json says it too."""
    if status < 0:
        name = signal.Signals(-status).name
        line = f"run {launch.run}: process {rank} of {launch.count} was killed by {name}, and the others were ended"
        failure = Failed(f"{line}. Fix: run the same command again.", reason="killed")
        if launch.out.is_dir():
            step = last_position(launch.out / "losses.csv")[0]
            write_failure(launch.out, run=launch.run, reason=failure.reason, message=str(failure), step=step)
        return failure
    with suppress(OSError):
        shutil.copy(rank_folder(rank, launch.folder) / FAILURE, launch.out / FAILURE)
    lines = log_tail(launch.output(rank))
    # All of it for the job's log; the terminal gets one line.
    print("\n".join(f"process {rank} of {launch.count}: {line}" for line in lines), flush=True)
    own = [line for line in lines if line.startswith(FAILURE_LINES)]
    reason = own[-1].partition(": ")[2] if own else f"process {rank} of {launch.count} ended with status {status}"
    return UserError(reason) if status == EXIT_USER_ERROR else Failed(reason)
