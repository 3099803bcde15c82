"""A whole study by loragrid, and the same cells by a script of TRL, PEFT and lm-eval alone.

    python -m benchmarks.study [--study demo] [--repeats 2] [--ways WAY …] [--out FILE.json]

The ways take turns: `snakemake --cores 1` and `--cores 2` (a fresh folder each time), a single-process loop (`study_peer.py`),
and that script once per subject (`study_peer.sh`); optionally one core without the fork server (`--config warm=false`). The
peers neither check the rows nor split them by answer, save no verified checkpoints, and compare and report nothing; loragrid's
figures include all of this.
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import RESULTS, in_turn, ratios, run, spread, write
from loragrid.paths import ROOT

HERE = Path(__file__).resolve().parent


WAYS = ("one", "peer", "two", "peers")
NAMES = {
    "one": "snakemake --cores 1",
    "peer": "one process",
    "two": "snakemake --cores 2",
    "peers": "one process per subject",
    "cold": "snakemake --cores 1, not warm",
}
# The ratios: of which way to which other one, and by which figure.
RATIOS = {
    "one core to one process": ("one", "peer", "seconds"),
    "one core to one process, CPU": ("one", "peer", "cpu_seconds"),
    "one core to one process per subject": ("one", "peers", "seconds"),
    "two cores to one": ("two", "one", "seconds"),
    "warm to not warm": ("one", "cold", "seconds"),
}


def measure(study: str, *, repeats: int, folder: Path, ways: Sequence[str] = WAYS) -> dict[str, Any]:
    """Times of all ways, `repeats` times each, and the ratios of loragrid's to the others'."""
    numbers = iter(range(10_000))

    def fresh() -> Path:
        place = folder / str(next(numbers))
        place.mkdir(parents=True)
        return place

    def snakemake(cores: int, **config: object) -> dict[str, Any]:
        place = fresh()
        settings = [f"study={study}", *(f"{key}={value}" for key, value in config.items())]
        command = [sys.executable, "-m", "snakemake", "--cores", cores, "--snakefile", ROOT / "workflow" / "Snakefile"]
        taken = run([*command, "--directory", place, "--config", *settings], log=place / "log")
        return taken | {"jobs": _jobs(place)}

    def peer(command: list[Any]) -> dict[str, Any]:
        place = fresh()
        return run([*command, "--study", study, "--out", place], log=place / "log")

    run_by = {
        "one": lambda: snakemake(1),
        "peer": lambda: peer([sys.executable, "-m", "benchmarks.study_peer"]),
        "two": lambda: snakemake(2),
        "peers": lambda: peer(["sh", HERE / "study_peer.sh", sys.executable]),
        "cold": lambda: snakemake(1, warm="false"),
    }
    taken = in_turn({NAMES[way]: run_by[way] for way in ways}, repeats=repeats)
    return {
        "study": Path(study).stem,
        "taken": taken,
        "ratios": {
            what: ratios(taken, NAMES[way], NAMES[other], key=key)
            for what, (way, other, key) in RATIOS.items()
            if {way, other} <= set(ways)
        },
        "seconds": {way: spread([one["seconds"] for one in times]) for way, times in taken.items()},
        "peak_pss_mib": {way: spread([one["peak_pss_mib"] for one in times]) for way, times in taken.items()},
    }


def _jobs(place: Path) -> dict[str, float]:
    """Seconds of all jobs of each stage, from Snakemake's own benchmark files."""
    seconds: dict[str, float] = {}
    for file in place.glob("results/*/benchmarks/**/*.tsv"):
        stage = file.parent.name if file.parent.name != "benchmarks" else file.stem
        with open(file, newline="") as rows:
            seconds[stage] = seconds.get(stage, 0.0) + sum(
                float(row["s"]) for row in csv.DictReader(rows, delimiter="\t")
            )
    return {stage: round(value, 2) for stage, value in sorted(seconds.items())}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="demo")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--ways", nargs="*", choices=[*WAYS, "cold"], default=WAYS)
    parser.add_argument("--out", type=Path, default=RESULTS / "study.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(options.out, measure(options.study, repeats=options.repeats, folder=Path(folder), ways=options.ways))


if __name__ == "__main__":
    main()
