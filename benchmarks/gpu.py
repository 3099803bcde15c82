"""Training on one CUDA GPU, without network: loragrid's train stage beside unsloth alone and TRL alone, by speed and memory.

    python benchmarks/gpu.py PIECE [--shape llama-1b …] [--minutes 9] [--steps 12] [--out FILE.json]

A call begins no row after so many minutes and keeps what an earlier one on the same card and versions measured: call it again
until the file says `"complete": true`. Pieces:
  train     every way × padded and packed × per-device batch 2 and 4 × 4bit and 16bit × fp16 and bf16
  capped    the cells of the study `t4` under a T4's memory, in fp16: does each fit, and how far off was the plan?
  together  three small runs by Snakemake, at once as far as `--resources vram_mib` lets them, and one after another
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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gpu_reckoned import Setting
from gpu_runs import Bench
from measuring import RESULTS, write

Row = dict[str, Any]
# What is asked, which names the row, and how to measure it: {what came out}.
Asked = tuple[Row, Callable[[], Row]]


def train(bench: Bench, shapes: list[str]) -> Iterator[Asked]:
    """Speed and memory of every way."""
    precisions, dtypes = (("4bit", "16bit"), ("bf16", "fp16")) if bench.cuda else (("32bit",), ("fp32",))
    choices = itertools.product(shapes, dtypes, precisions, (2, 4), (False, True))
    for shape, dtype, precision, per_device, packing in choices:
        setting = Setting(shape=shape, precision=precision, per_device=per_device, packing=packing, dtype=dtype)
        for way in bench.ways():
            yield {"way": way, **vars(setting)}, partial(bench.speed, setting, way)


def capped(bench: Bench, shapes: list[str]) -> Iterator[Asked]:
    """The t4 study's cells within what a T4 leaves beside its CUDA context."""
    from loragrid.planning.gpu_cards import read_cards
    from loragrid.planning.memory_model import CONTEXT_MIB
    from loragrid.study.study_file import load_study

    precision, dtype = ("4bit", "fp16") if bench.cuda else ("32bit", "fp32")
    cap_mib = read_cards()["T4"]["memory_mib"] - CONTEXT_MIB if bench.cuda else 0
    for cell in load_study("t4").cells:
        if cell.model in shapes or "tiny" in shapes:
            shape = cell.model if cell.model in shapes else "tiny"
            setting = Setting(shape=shape, precision=precision, per_device=cell.batch[0], packing=False, dtype=dtype)
            setting = setting.with_cell(rank=cell.rank, accumulation=cell.batch[1])
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


def measure(
    piece: str, *, shapes: list[str], steps: int, minutes: float, folder: Path, known: list[Row] | None = None
) -> dict[str, Any]:
    """`known` rows and those that the time was enough for, at least one; a row that failed says why."""
    bench, until = Bench(folder, steps=steps), time.monotonic() + 60 * minutes
    rows, begun, complete = list(known or []), 0, True
    for asked, run in PIECES[piece](bench, shapes):
        asked |= {"steps": steps}
        if any(asked.items() <= row.items() for row in rows):
            continue
        if begun and time.monotonic() > until:
            complete = False
            break
        try:
            rows.append(asked | run())
        except RuntimeError as error:
            rows.append(asked | {"failed": str(error)})
        begun += 1
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return {
        "piece": piece,
        "on": "cuda" if bench.cuda else "cpu: nothing about a GPU",
        "complete": complete,
        "rows": rows,
    }


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
    parser.add_argument("--steps", type=int, default=12, help="updates of each run; the first quarter is not timed")
    parser.add_argument("--minutes", type=float, default=9, help="begin no row later than this")
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
        )
    write(out, found)


if __name__ == "__main__":
    main()
