"""Training on one CUDA GPU, without network: loragrid's train stage beside unsloth alone and TRL alone, by speed and memory.

    python -m benchmarks.gpu PIECE [--shape llama-1b …] [--vary base fold …] [--minutes 9] [--steps 12] [--out FILE.json]

A call begins no row after so many minutes and keeps what an earlier one on the same card and versions measured: call it again
until the file says `"complete": true`. Each row is written as it comes. Importing a library takes longer than a row, so a few
runs import beside the one that uses the card. Pieces:
  train     the base case of every shape (4bit, bf16, batch 2 × 4, padded), ours and the libraries alone; then what departs from
            it in one way: 8 × 1 (`fold`), packed, 16bit, fp16
  capped    the cells of the study `t4` under a T4's memory, in fp16: does each fit, and how far off was the plan? Several at once
  together  three small runs by Snakemake, at once as far as `--resources vram_mib` lets them, and one after another
  resume    the same run twice, and once killed and resumed: how far do the adapters differ?

Models have random weights in true shapes (`shapes.py`). On a machine without a GPU, `--shape tiny` tries everything out on the
CPU; its rows say so and prove nothing about a GPU.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_reckoned import Setting
from benchmarks.gpu_runs import Bench
from benchmarks.measuring import RESULTS, write

Row = dict[str, Any]
# What is asked, which names the row, and how to measure it: {what came out}.
Asked = tuple[Row, Callable[[], Row]]


DEFAULTS = (", its own defaults",)
# What departs from the base case, and beside which ways of the libraries alone it is measured.
VARIED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "base": ({}, ("", *DEFAULTS)),
    "fold": ({"per_device": 8, "accumulation": 1}, (*DEFAULTS, ", its own defaults without recomputation")),
    "packing": ({"packing": True}, ("",)),
    "precision": ({"precision": "16bit"}, ("",)),
    "dtype": ({"dtype": "fp16"}, ("",)),
}
ON_CPU = ("base", "packing")


def train(bench: Bench, shapes: list[str], vary: list[str] | None = None) -> Iterator[Asked]:
    """Speed and memory of every way."""
    for name in vary or (VARIED if bench.cuda else ON_CPU):
        changes, alone = VARIED[name]
        for shape in shapes:
            setting = replace(bench.plain(shape), **changes)
            for way in bench.ways(alone=alone):
                yield {"way": way, **vars(setting)}, partial(bench.speed, setting, way)


def capped(bench: Bench, shapes: list[str]) -> Iterator[Asked]:
    """The t4 study's cells within what a T4 leaves beside its CUDA context."""
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
    """Seconds of three runs of the smallest shape, beside each other and one after another."""
    setting = bench.plain(shapes[-1])
    for beside in (False, True):
        asked = {"what": "three runs by Snakemake", "beside each other": beside, **vars(setting)}
        yield asked, partial(bench.several, setting, 3, beside=beside)


def resume(bench: Bench, shapes: list[str]) -> Iterator[Asked]:
    """Largest difference between the adapters of two uninterrupted runs, and of one that was killed and resumed."""
    setting = bench.plain(shapes[0])
    for backend in bench.backends():
        yield {"backend": backend, **vars(setting)}, partial(bench.resume, setting, backend)


PIECES = {"train": train, "capped": capped, "together": together, "resume": resume}


# Peaks are each process's own, so runs that are only asked for their memory need not take turns.
BESIDE = {"train": 3, "capped": 3}


def measure(
    piece: str,
    *,
    shapes: list[str],
    steps: int,
    minutes: float,
    folder: Path,
    known: list[Row] | None = None,
    vary: list[str] | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
    models: Path | None = None,
) -> dict[str, Any]:
    """`known` rows and those that the time was enough for, at least one; a row that failed says why. What is there is given to
    `keep` after every row."""
    bench = Bench(folder, steps=steps, turns=piece != "capped", models=models)
    until = time.monotonic() + 60 * minutes
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

    asked_for = PIECES[piece](bench, shapes, vary) if piece == "train" else PIECES[piece](bench, shapes)
    with ThreadPoolExecutor(BESIDE.get(piece, 1) if bench.cuda else 1) as pool:
        wanted = [(asked | {"steps": steps}, run) for asked, run in asked_for]
        missing = [
            (asked, run) for asked, run in wanted if not any(asked.items() <= row.items() for row in found["rows"])
        ]
        for done in [pool.submit(one, asked, run) for asked, run in missing]:
            done.result()
    return found | {"complete": not left and not vary}


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
    parser.add_argument("--vary", nargs="*", choices=VARIED, help="of the piece train: only these")
    parser.add_argument("--steps", type=int, default=12, help="updates of each run; the first quarter is not timed")
    parser.add_argument("--minutes", type=float, default=9, help="begin no row later than this")
    parser.add_argument("--models", type=Path, help="a folder on the same disk that keeps the models for the next call")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or RESULTS / f"gpu_{options.piece}.json"
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            options.piece,
            shapes=options.shape,
            steps=options.steps,
            minutes=options.minutes,
            folder=Path(folder),
            known=read_known(out),
            vary=options.vary,
            keep=partial(write, out),
            models=options.models,
        )
    write(out, found)


if __name__ == "__main__":
    main()
