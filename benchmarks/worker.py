"""Seconds from the start of a train job to its first update: processes of their own against a resident worker.

    python -m benchmarks.worker [--repeats 3] [--out FILE.json]

The base case of the demo with few rows, trained three times for a few updates: by a process of its own, as the first job
of a worker, and as its second job. CPU seconds are those of the job and of its worker, which other work on the machine does
not lengthen. The adapters of all must be equal, bit for bit. On the CPU, whatever the machine has; a 4-bit base and its
quantising on a GPU are not measured.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measuring import ONE_THREAD, RESULTS, in_turn, spread, write

os.environ |= ONE_THREAD | {"CUDA_VISIBLE_DEVICES": ""}

from loragrid.models.adapter_files import ADAPTER, trained_sha256
from loragrid.paths import SCRIPTS
from loragrid.runtime.atomic_files import read_json
from loragrid.runtime.delegation.client import WORKERS
from loragrid.study.study_file import Study, load_study
from loragrid.workflow.jobs import Jobs
from loragrid.workflow.resident_workers import start_workers
from tools.certify import prepare_data, shorten

WAYS = ("a process of its own", "first job of a worker", "second job of a worker")


def first_update(study: Study, data: Path, out: Path) -> dict[str, Any]:
    """Wall and CPU seconds of one job until its first update, and the digest of its adapter."""
    known = {process.pid: _cpu_seconds(process) for process in psutil.process_iter()}
    script, run = SCRIPTS / "train.py", study.cells[0].run
    command = [sys.executable, script, "--study", study.path, "--run", run, "--data", data, "--out", out]
    began = time.monotonic()
    job = subprocess.Popen([*map(str, command), "--log", f"{out}.log"], stderr=subprocess.DEVNULL)
    losses = out / "losses.csv"
    while not (losses.exists() and ",train," in losses.read_text()):
        if job.poll():
            raise SystemExit(Path(f"{out}.log").read_text())
        time.sleep(0.002)
    seconds = time.monotonic() - began
    # The lock names the process that trains.
    processes = {job.pid, read_json(out / "trainer.lock")["pid"]}
    cpu = sum(_cpu_seconds(psutil.Process(process)) - known.get(process, 0.0) for process in processes)
    job.wait()
    return {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3), "sha256": trained_sha256(out / ADAPTER)}


def measure(study: Study, data: Path, work: Path, *, repeats: int) -> dict[str, Any]:
    """All ways in turn; the worker of each turn is a new one."""
    jobs = Jobs(study, results=str(work / "results"), session_minutes=None)
    numbers = iter(range(1000))

    def train(worker: str | None) -> dict[str, Any]:
        if worker is None or worker == "new":
            os.environ.pop(WORKERS, None)
        if worker == "new":
            start_workers(jobs, local=True, warm=True, wanted=True)
        return first_update(study, data, work / f"run-{next(numbers)}")

    workers = dict(zip(WAYS, (None, "new", "same")))
    taken = in_turn({way: lambda worker=worker: train(worker) for way, worker in workers.items()}, repeats=repeats)
    return {
        "seconds": {way: spread([one["seconds"] for one in found]) for way, found in taken.items()},
        "cpu_seconds": {way: spread([one["cpu_seconds"] for one in found]) for way, found in taken.items()},
        "equal": len({one["sha256"] for found in taken.values() for one in found}) == 1,
        "repetitions": taken,
    }


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "worker.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        study = shorten(load_study("demo"), work / "demo.yaml")
        data = prepare_data(study, work / "data")
        write(options.out, measure(study, data, work, repeats=options.repeats))


if __name__ == "__main__":
    main()
