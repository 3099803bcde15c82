"""Training on one CUDA GPU, without network: loragrid's train stage beside unsloth alone and TRL alone, by speed and memory.

    python -m benchmarks.gpu PIECE [--shape llama-1b …] [--vary base fold …] [--minutes 9] [--steps 12] [--out FILE.json]

A call starts no row after `--minutes` and keeps the rows of earlier calls on the same card with the same versions: repeat it
until the file says `"complete": true`. Each row is written at once. Importing a library takes longer than a row, so a few runs
import while another one uses the card. Pieces:
  train     the base case of every shape (4bit, bf16, batch 2 × 4, not packed), by loragrid and by the libraries alone; then
            single departures from it: 8 × 1 (`fold`), packed, 16bit, fp16; and TRL in loragrid with liger's kernels (`liger`)
  capped    the cells of the study `t4` in fp16 with a T4's memory: does each fit, and how good was the prediction? Several at once
  together  three small runs by Snakemake, in parallel as far as `--resources vram_mib` allows, and one after another
  resume    the same run twice, and once killed and resumed: how far do the adapters differ?
  scoring   a base and two adapters of the first shape on choices and generated answers: by our stage with each engine, and by the
            `lm_eval` command once per subject (the row of vLLM needs `make vllm`)

Models have random weights in true shapes (`shapes.py`). On a machine without a GPU, `--shape tiny` tries everything on the CPU;
its rows are marked and prove nothing about a GPU.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import gpu_scoring
from benchmarks.gpu_predictions import Setting
from benchmarks.gpu_runs import Bench
from benchmarks.measuring import RESULTS, write

Row = dict[str, Any]
# The row's name, as what it asks for, and the function that measures it and returns the results.
Asked = tuple[Row, Callable[[], Row]]


DEFAULTS = (", its own defaults",)
# Name → departures from the base case, and the ways of the libraries alone that are measured with it.
VARIED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "base": ({}, ("", *DEFAULTS)),
    "fold": ({"per_device": 8, "accumulation": 1}, (*DEFAULTS, ", its own defaults without recomputation")),
    "packing": ({"packing": True}, ("",)),
    "precision": ({"precision": "16bit"}, ("",)),
    "dtype": ({"dtype": "fp16"}, ("",)),
}
LIGER = "liger"  # the base case once more, with and without liger's kernels
ON_CPU = ("base", "packing")


def train(bench: Bench, shapes: list[str], vary: list[str] | None = None) -> Iterator[Asked]:
    """Speed and memory of each way to train."""
    for name in vary or ((*VARIED, LIGER) if bench.cuda else ON_CPU):
        changes, alone = VARIED.get(name, ({}, ()))
        for shape in shapes:
            setting = replace(bench.plain(shape), **changes)
            # All rows were measured with the base case already, but for the one with the kernels.
            liger = bench.liger_ways()[0 if vary else 1 :]
            if name == LIGER and vary and not liger:
                sys.exit("liger: there is no GPU, or it is not installed. Fix: pip install -r requirements-gpu.txt.")
            for way in liger if name == LIGER else bench.ways(alone=alone):
                yield {"way": way, **vars(setting)}, partial(bench.speed, setting, way)


def capped(bench: Bench, shapes: list[str]) -> Iterator[Asked]:
    """Whether the t4 study's cells fit in the memory that a T4 has left after its CUDA context."""
    from loragrid.planning.gpu_cards import read_cards
    from loragrid.planning.job_memory import request_key
    from loragrid.planning.memory_model import CONTEXT_MIB
    from loragrid.study.study_file import load_study

    precision, dtype = ("4bit", "fp16") if bench.cuda else ("32bit", "fp32")
    cap_mib = read_cards()["T4"].memory_mib - CONTEXT_MIB if bench.cuda else 0
    seen = set()
    for cell in load_study("t4").cells:
        settings = cell.settings
        needs = request_key(settings)  # the learning rate takes no memory
        # An adapter of the attention alone needs less than one of all layers, which is among the cells.
        if needs not in seen and settings.target_modules == "all-linear" and (cell.model in shapes or "tiny" in shapes):
            seen.add(needs)
            shape = cell.model if cell.model in shapes else "tiny"
            sizes = {"per_device": settings.per_device, "packing": settings.packing}
            setting = Setting(shape=shape, precision=precision, dtype=dtype, **sizes)
            setting = setting.with_cell(rank=settings.rank, accumulation=settings.accumulation)
            for backend in bench.backends():
                asked = {"run": cell.run, "backend": backend, "cap_mib": cap_mib, **vars(setting)}
                yield asked, partial(bench.fit, setting, backend, cap_mib=cap_mib)


def together(bench: Bench, shapes: list[str]) -> Iterator[Asked]:
    """Seconds of three runs of the smallest shape, in parallel and one after another."""
    setting = bench.plain(shapes[-1])
    for beside in (False, True):
        asked = {"what": "three runs by Snakemake", "beside each other": beside, **vars(setting)}
        yield asked, partial(bench.several, setting, 3, beside=beside)


def resume(bench: Bench, shapes: list[str]) -> Iterator[Asked]:
    """Largest difference between the adapters of two uninterrupted runs, and after a kill."""
    setting = bench.plain(shapes[0])
    for backend in bench.backends():
        yield {"backend": backend, **vars(setting)}, partial(bench.resume, setting, backend)


def scoring(bench: Bench, shapes: list[str]) -> Iterator[Asked]:
    """Seconds of scoring a base and two adapters."""
    items = 200 if bench.cuda else 1
    for way in gpu_scoring.ways():
        asked = {"way": way, "shape": shapes[0], "items of a task": items, "subjects": 1 + len(gpu_scoring.ADAPTERS)}
        yield asked, partial(gpu_scoring.score, bench, shapes[0], way, items=items)


PIECES = {"train": train, "capped": capped, "together": together, "resume": resume, "scoring": scoring}


# Peak memory is counted per process, so runs that only measure memory need not take turns.
BESIDE = {"train": 3, "capped": 3}


@dataclass(frozen=True)
class Options:
    """The extent of a call: the options of the command line that have the same names."""

    shapes: list[str]
    steps: int
    minutes: float
    vary: list[str] | None = None
    models: Path | None = None


def measure(
    piece: str,
    options: Options,
    *,
    folder: Path,
    known: list[Row] | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """The `known` rows and those that fit in the time, at least one; a failed row holds the reason. `keep` receives the
    result so far after every row."""
    bench = Bench(folder, steps=options.steps, turns=piece != "capped", models=options.models)
    until = time.monotonic() + 60 * options.minutes
    found = {"piece": piece, "on": "cuda" if bench.cuda else "cpu: nothing about a GPU"}
    found |= {"complete": False, "rows": list(known or [])}
    begun, left, lock = 0, 0, threading.Lock()

    def one(asked: Row, run: Callable[[], Row]) -> None:
        nonlocal begun, left
        with lock:
            if begun and time.monotonic() > until:
                left += 1
                return
            begun += 1
        try:
            row = asked | run()
        except RuntimeError as error:
            row = asked | {"failed": str(error)}
        with lock:
            found["rows"].append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            keep(found)

    if piece == "train":
        asked_for = train(bench, options.shapes, options.vary)
    else:
        asked_for = PIECES[piece](bench, options.shapes)
    with ThreadPoolExecutor(BESIDE.get(piece, 1) if bench.cuda else 1) as pool:
        wanted = [(asked | {"steps": options.steps}, run) for asked, run in asked_for]
        missing = [
            (asked, run) for asked, run in wanted if not any(asked.items() <= row.items() for row in found["rows"])
        ]
        for done in [pool.submit(one, asked, run) for asked, run in missing]:
            done.result()
    return found | {"complete": not left and not options.vary}


def read_known(file: Path) -> list[Row]:
    """Rows of an earlier call on this card with these versions. One that failed is tried again."""
    from loragrid.runtime.provenance import device_info, versions

    if not file.is_file():
        return []
    found = json.loads(file.read_text())
    if found["device"]["name"] != device_info()["name"] or found["versions"] != versions():
        return []
    return [row for row in found["rows"] if "failed" not in row]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("piece", choices=PIECES)
    parser.add_argument("--shape", nargs="*", default=["llama-1b", "llama-3b", "gemma-270m"])
    parser.add_argument("--vary", nargs="*", choices=(*VARIED, LIGER), help="only these rows of the piece train")
    parser.add_argument("--steps", type=int, default=12, help="updates of each run; the first quarter is not timed")
    parser.add_argument("--minutes", type=float, default=9, help="start no row later than this")
    parser.add_argument("--models", type=Path, help="a folder on the same disk that keeps the models for the next call")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out or RESULTS / f"gpu_{arguments.piece}.json"
    options = Options(arguments.shape, arguments.steps, arguments.minutes, arguments.vary, arguments.models)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.piece, options, folder=Path(folder), known=read_known(out), keep=partial(write, out))
    write(out, found)


if __name__ == "__main__":
    main()
