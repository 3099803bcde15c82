"""Large studies: Snakemake on 100 to 10,000 cells beside a bare grid Snakefile, and preparing many rows.

    python -m benchmarks.scale [--cells 100 …] [--rows 1000 …] [--processes 2 …] [--repeats 2] [--out FILE.json]

Snakemake: a dry run of everything, a run with nothing to do, and a dry run with one more learning rate in a finished study. The
bare Snakefile has the same jobs and files, but runs `touch` instead of every stage and has no study file. It is timed twice: in
its shortest form, and with the directives of a linted rule for a cluster. Finished studies consist of empty files, in the order
in which the stages would write them. They lack the provenance by which Snakemake notices that a study has grown, so compare is
forced there. The grid has one model and one batch; with several models the jobs request different resources, and planning takes
a little longer. `--cells` or `--rows` without values keeps the figures that the file has.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.bare_grid import bare_snakefile, finish_bare, touch
from benchmarks.measuring import RESULTS, in_turn, ratios, run, write
from loragrid.paths import ROOT, SCRIPTS

WORDS_PER_TURN = 60


def grid_study(folder: Path, cells: int, *, added: bool = False) -> Path:
    """A factorial study of `cells` cells (a multiple of 100: learning rates × ranks × seeds), or one rate more if `added`."""
    from loragrid.study.study_file import load_study

    settings = load_study("demo").yaml
    model = settings["base_case"]["model"]
    settings["models"] = {model: settings["models"][model]}
    settings["base_case"] |= {"learning_rate": 0.001, "rank": 1, "seed": 0}
    settings["grid"] = {
        "design": "factorial",
        "axes": {
            "learning_rate": [round(0.001 * step, 6) for step in range(1, 11)],
            "rank": list(range(1, 11)),
            "seed": list(range(cells // 100)),
        },
    }
    if added:  # a factorial grid grows by a whole row of the product
        settings["grid"]["axes"]["learning_rate"].append(0.011)
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def finish(folder: Path, study: Path) -> None:
    """Make the files of a finished study, each newer than its inputs and empty, but for the data card, which is read."""

    from loragrid.study.study_file import load_study
    from loragrid.study.training_sets import training_sets

    loaded = load_study(str(study))
    cells, results = loaded.cells, folder / "results" / study.stem
    reports = folder / "reports" / study.stem
    steps = [
        [results / "data" / data / "card.json" for data in loaded.data_sets],
        [results / "train" / cell.run / "record.json" for cell in cells],
        [results / "score" / name / "score.json" for name in (*loaded.bases, *(cell.run for cell in cells))],
        [results / "find_contamination" / f"{data}.json" for data in training_sets(loaded).values()],
        [results / "compare" / "compare.json"],
        [results / "next" / "next.json"],
        [
            reports / "report.html",
            reports / "figures" / ".snakemake_timestamp",
            reports / "tables" / ".snakemake_timestamp",
        ],
    ]
    for card in steps[0]:
        card.parent.mkdir(parents=True, exist_ok=True)
        card.write_text("{}")
    touch(steps)


def measure_snakemake(cells: int, *, repeats: int, folder: Path) -> dict[str, Any]:
    """Times of a dry run, a no-op and a grown study, for all three workflows."""
    found: dict[str, Any] = {"cells": cells}
    for what in ("dry run", "nothing to do", "more cells, dry run"):
        options = [] if what == "nothing to do" else ["--dry-run"]
        options += ["--forcerun", "compare"] if what.startswith("more") else []
        options += ["--scheduler", "greedy"] if cells > 500 else []
        places = _places(what, cells, folder)
        taken = in_turn(
            {
                name: lambda place=place, options=options: run(
                    [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", *options, *place]
                )
                for name, place in places.items()
            },
            repeats=repeats,
        )
        found[what] = {"taken": taken}
        for key, to in (("ratio", "bare"), ("linted_ratio", "linted")):
            found[what][key] = ratios(taken, "loragrid", to)
            found[what][f"cpu_{key}"] = ratios(taken, "loragrid", to, key="cpu_seconds")
    return found


def _places(what: str, cells: int, folder: Path) -> dict[str, list[Any]]:
    """Snakemake's options for each workflow to time: loragrid, the bare grid, and the bare grid with more directives."""

    from loragrid.study.study_file import load_study

    ours, bare, linted = (folder / f"{what}-{name}-{cells}" for name in ("ours", "bare", "linted"))
    for place in (ours, bare, linted):
        place.mkdir(parents=True)
    study = grid_study(ours, cells)
    runs = [cell.run for cell in load_study(str(study)).cells]
    if what != "dry run":
        finish(ours, study), finish_bare(bare, runs), finish_bare(linted, runs)
    if what.startswith("more"):
        study = grid_study(ours, cells, added=True)
        runs = [cell.run for cell in load_study(str(study)).cells]
    for place in (bare, linted):
        (place / "Snakefile").write_text(bare_snakefile(runs, linted=place == linted))
    return {
        "loragrid": ["-s", ROOT / "workflow" / "Snakefile", "-d", ours, "--config", f"study={study}"],
        "bare": ["-s", bare / "Snakefile", "-d", bare],
        "linted": ["-s", linted / "Snakefile", "-d", linted],
    }


def measure_rows(rows: int, folder: Path, processes: list[int]) -> dict[str, Any]:
    """Seconds, memory and tokens of prepare_data on a file of `rows` conversations, in one process.

    `parallel` holds the same with each number of `processes`, and how much faster that is.
    """

    from loragrid.study.study_file import load_study

    folder.mkdir(parents=True)
    file = folder / "chat.jsonl"
    with open(file, "w") as out:
        out.writelines(json.dumps(row) + "\n" for row in conversations(rows))
    settings = load_study("demo").yaml
    settings["data"] = {"chat": {"source": {"path": str(file)}}}
    settings["heldout"] |= {"set": "chat", "rows": min(80, rows // 10)}
    settings["base_case"] |= {"data": "chat", "max_length_tokens": 512}
    path = folder / "rows.yaml"
    path.write_text(yaml.safe_dump(settings))
    data = next(iter(load_study(str(path)).data_sets))
    stage = [sys.executable, SCRIPTS / "prepare_data.py", "--study", path, "--data", data]
    taken = run([*stage, "--out", folder / "out"])
    card = json.loads((folder / "out" / "card.json").read_text())
    parallel = []
    for number in processes:
        out = folder / f"out{number}"
        found = run([*stage, "--out", out, "--processes", str(number)])
        same = (out / "card.json").read_bytes() == (folder / "out" / "card.json").read_bytes()
        faster = round(taken["seconds"] / found["seconds"], 2)
        parallel.append(found | {"processes": number, "times_as_fast": faster, "same_card": same})
    return taken | {
        "rows": rows,
        "mib": round(file.stat().st_size / 2**20, 1),
        "tokens": card["tokens"]["train"],
        "milliseconds_per_row": round(1000 * taken["seconds"] / rows, 4),
        "parallel": parallel,
    }


def conversations(rows: int) -> Iterator[dict[str, Any]]:
    """Synthetic ShareGPT conversations of one to three exchanges, with log-normal lengths like real ones."""
    random = np.random.default_rng(3407)
    syllables = ["ka", "lo", "mi", "ren", "tu", "sha", "vel", "or", "pin", "das", "eth", "un"]
    words = ["".join(random.choice(syllables, size=random.integers(1, 4))) for _ in range(5000)]
    for _ in range(rows):
        turns = []
        for _ in range(random.integers(1, 4)):
            for speaker in ("human", "gpt"):
                length = int(min(400, max(3, random.lognormal(np.log(WORDS_PER_TURN / 2), 0.8))))
                turns.append({"from": speaker, "value": " ".join(words[i] for i in random.integers(5000, size=length))})
        yield {"conversations": turns}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--rows", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--processes", type=int, nargs="*", default=[2])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found = {
            "snakemake": [measure_snakemake(cells, repeats=options.repeats, folder=folder) for cells in options.cells],
            "prepare_data": [measure_rows(rows, folder / f"rows{rows}", options.processes) for rows in options.rows],
        }
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    write(options.out, {part: values or kept.get(part, []) for part, values in found.items()})


if __name__ == "__main__":
    main()
