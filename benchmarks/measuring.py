"""Shared by all benchmarks: run and time a command, take turns, write the result with its machine.

Times are compared as ratios within one run, because absolute times mean little on a shared machine. CPU seconds are measured
too, because other work on the machine lengthens wall time.
"""

import contextlib
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from loragrid.paths import ROOT

RESULTS = ROOT / "benchmarks" / "results"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
PR_SET_CHILD_SUBREAPER = 36
SAMPLE_SECONDS = 1.0


def run(command: Sequence[str | Path], *, cwd: Path = ROOT, log: Path | None = None) -> dict[str, float]:
    """Run a command to its end; `seconds`, `cpu_seconds` and `peak_pss_mib` of it and its descendants.

    Memory is the largest sum, sampled once a second, of the processes' proportional set sizes: a page that several
    share counts once. Processes that the command leaves behind are waited for. A status other than 0 stops the
    benchmark with the command and the last lines of its output.
    """
    others = {process.pid for process in psutil.Process().children()}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with open(log or os.devnull, "w+b") as output, _adopting_orphans():
        process = subprocess.Popen(
            [str(part) for part in command], cwd=cwd, env=_environment(), stdout=output, stderr=output
        )
        memory = _Memory()
        status = process.wait()
        seconds = time.monotonic() - began
        _wait_for_orphans(others)
        memory.stop()
        if status:
            output.seek(0)
            tail = output.read()[-2000:].decode(errors="replace")
            raise SystemExit(f"{' '.join(map(str, command))} ended with status {status}:\n{tail}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3), "peak_pss_mib": round(memory.peak, 1)}


def _environment() -> dict[str, str]:
    """This environment with one thread, and with Python's cache of compiled files, which it may have switched off."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | ONE_THREAD


class _Memory:
    """Samples the memory of this process's descendants."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        this = psutil.Process()
        while not self._ended.wait(SAMPLE_SECONDS):
            total = 0
            for process in this.children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue  # it has just ended
            self.peak = max(self.peak, total / 2**20)


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    """In the block, processes that outlive their parent become children of this one, so their CPU time is counted."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _wait_for_orphans(others: set[int]) -> None:
    while orphans := [process.pid for process in psutil.Process().children() if process.pid not in others]:
        os.waitpid(orphans[0], 0)


def in_turn(ways: dict[str, Callable[[], dict[str, Any]]], *, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Runs every way once, then again, so that a slow phase of the machine affects all alike."""
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name, way in ways.items():
            taken[name].append(way())
            print(f"{name}, {repeat + 1} of {repeats}: {json.dumps(taken[name][-1])}", file=sys.stderr, flush=True)
    return taken


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(taken: dict[str, list[dict[str, Any]]], way: str, to: str, *, key: str = "seconds") -> dict[str, float]:
    """Spread of `way`'s figures over those of `to`, repeat by repeat."""
    return spread([one[key] / other[key] for one, other in zip(taken[way], taken[to], strict=True)])


def write(out: Path, found: dict[str, Any]) -> None:
    """Write the results as JSON, with machine, versions, commit and time."""
    from loragrid.runtime.atomic_files import write_json
    from loragrid.runtime.provenance import device_info, git_state, versions

    facts = {"device": device_info() | {"host": None}, "load": os.getloadavg()[0], "versions": versions()}
    facts |= {"git": git_state(), "measured_at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(out, {"benchmark": out.stem} | found | facts)
    print(f"written: {out}", file=sys.stderr)
