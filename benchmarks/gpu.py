"""Training on one CUDA GPU, without network: loragrid's train stage beside unsloth alone and TRL alone, by speed and memory.

    python benchmarks/gpu.py PIECE [--shape llama-1b …] [--minutes 9] [--steps 12] [--out FILE.json]

Pieces, each under ten minutes and each adding its rows to the file:
  train     every way × padded and packed × per-device batch 2 and 4 × 4bit and 16bit, in the card's own 16-bit type
  capped    the cells of the study `t4` under 15 GiB, in fp16: does each fit, and how far off was the plan?
  together  three small runs at once, as `--resources vram_mib` would start them, and one after another
  resume    the same run twice, and once killed and resumed: how far do the adapters differ?

Models have random weights in true shapes (`shapes.py`). On a machine without a GPU, `--shape tiny` tries everything out on the
CPU; its rows say so and prove nothing about a GPU.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_runs import Bench, Setting
from measuring import RESULTS, write

CAP_MIB = 15 * 1024


def train(bench: Bench, shapes: list[str]) -> Iterator[dict[str, Any]]:
    """Speed and memory of every way."""
    precisions = ("4bit", "16bit") if bench.cuda else ("32bit",)
    for shape, precision, per_device, packing in itertools.product(shapes, precisions, (2, 4), (False, True)):
        setting = Setting(shape=shape, precision=precision, per_device=per_device, packing=packing, dtype=bench.dtype)
        for way in bench.ways():
            yield bench.speed(setting, way)


def capped(bench: Bench, shapes: list[str]) -> Iterator[dict[str, Any]]:
    """The t4 study's cells within a T4's memory."""
    from study.grid import expand
    from study.study_file import load_study

    precision, dtype = ("4bit", "fp16") if bench.cuda else ("32bit", "fp32")
    for cell in expand(load_study("t4")):
        if cell.model in shapes or "tiny" in shapes:
            shape = cell.model if cell.model in shapes else "tiny"
            setting = Setting(shape=shape, precision=precision, per_device=cell.batch[0], packing=False, dtype=dtype)
            setting = setting.with_cell(rank=cell.rank, accumulation=cell.batch[1])
            for backend in bench.backends():
                yield bench.fit(setting, backend, cap_mib=CAP_MIB if bench.cuda else 0) | {"run": cell.run}


def together(bench: Bench, shapes: list[str]) -> Iterator[dict[str, Any]]:
    """Seconds of three runs of the smallest shape, beside each other and one after another."""
    setting = bench.plain(shapes[-1])
    for beside in (False, True):
        yield {"what": "three runs", "beside each other": beside, "seconds": bench.several(setting, 3, beside=beside)}


def resume(bench: Bench, shapes: list[str]) -> Iterator[dict[str, Any]]:
    """Largest difference between the adapters of two uninterrupted runs, and of one that was killed and resumed."""
    for backend in bench.backends():
        yield bench.resume(bench.plain(shapes[0]), backend)


PIECES = {"train": train, "capped": capped, "together": together, "resume": resume}


def measure(piece: str, *, shapes: list[str], steps: int, minutes: float, folder: Path) -> dict[str, Any]:
    """The rows that fit the time; a row that failed says why."""
    bench, until = Bench(folder, steps=steps), time.monotonic() + 60 * minutes
    rows, complete = [], True
    for row in PIECES[piece](bench, shapes):
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        if time.monotonic() > until:
            complete = False
            break
    return {
        "piece": piece,
        "on": "cuda" if bench.cuda else "cpu: nothing about a GPU",
        "complete": complete,
        "rows": rows,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("piece", choices=PIECES)
    parser.add_argument("--shape", nargs="*", default=["llama-1b", "llama-3b", "gemma-270m"])
    parser.add_argument("--steps", type=int, default=12, help="updates of each run; the first quarter is not timed")
    parser.add_argument("--minutes", type=float, default=9, help="begin no row later than this")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            options.piece,
            shapes=options.shape,
            steps=options.steps,
            minutes=options.minutes,
            folder=Path(folder),
        )
    write(options.out or RESULTS / f"gpu_{options.piece}.json", found)


if __name__ == "__main__":
    main()
