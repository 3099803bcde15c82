"""How fast this machine's CPU multiplies matrices, measured for two seconds and kept for the day."""

import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.paths import user_cache
from loragrid.runtime.atomic_files import read_json, write_json
from loragrid.runtime.provenance import cpu_name

MEASURED_SECONDS = 2.0
# A machine that is busy in the morning may be quiet in the evening.
KEPT_SECONDS = 12 * 3600
# By Linux: of x86, two sets of instructions, and of ARM.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
# Variables that tell the libraries beneath numpy how many threads to use; they read them when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# The size of a layer's matrices in a model of about a billion parameters; smaller products are slower. Divided by the
# seconds that the process had the CPU, so that other work on the machine does not count.
MEASURE = """
import sys, time
import numpy
matrix = numpy.ones((1024, 1024), numpy.float32)
matrix @ matrix
seconds, products = float(sys.argv[1]), 0
began, used = time.perf_counter(), time.process_time()
while products == 0 or time.perf_counter() - began < seconds:
    matrix @ matrix
    products += 1
print(2 * 1024**3 * products / (time.process_time() - used) / 1e12)
"""


def cpu_has_bf16(information: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether this CPU has instructions for bfloat16; None where the system does not say."""
    try:
        lines = information.read_text().splitlines()
    except OSError:
        return None
    flags = {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()}
    return bool(flags & BF16_FLAGS) if flags else None


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def product_tflops(threads: int) -> float:
    """TFLOPS of float32 matrix products on `threads` threads; measured at most twice a day for each machine."""
    file = user_cache() / "cpu_speed.json"
    key = f"{platform.node()}, {cpu_name()}, {threads} processes"
    kept = _read(file)
    # An entry that somebody has edited is measured again.
    with suppress(KeyError, TypeError, ValueError):
        if 0 <= time.time() - kept[key]["at"] < KEPT_SECONDS and kept[key]["tflops"] > 0:
            return float(kept[key]["tflops"])
    tflops = measure_products(threads)
    with suppress(OSError):  # without a cache it takes longer
        write_json(file, kept | {key: {"tflops": tflops, "at": time.time()}})
    return tflops


def measure_products(threads: int, seconds: float = MEASURED_SECONDS) -> float:
    """The same, measured now: a process for each thread, all at once.

    Threads of one process wait for each other in a loop that uses the CPU: on a busy machine that halved the figure.
    """
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
    command = [sys.executable, "-c", MEASURE, str(seconds)]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(threads)]
    found = [process.communicate()[0] for process in running]
    for process in running:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
    return sum(map(float, found))


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        kept = read_json(file)
    except UserError:  # A broken file is measured again.
        return {}
    return kept if isinstance(kept, dict) else {}
