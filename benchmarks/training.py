"""The train stage beside a bare TRL script with the same settings, and beside itself with packed rows.

    python -m benchmarks.training [--study demo] [--tokens 80000] [--repeats 3] [--out FILE.json]

Three ways take turns, each in its own process on the same tokenised rows: the base case by `scripts/train.py`, by
`training_peer.py`, and by `scripts/train.py` with packing, at the same token budget. Whole processes are compared, and training
alone, in tokens that carry loss per second. The original notebook trains like the peer, padded and not packed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measuring import RESULTS, in_turn, ratios, run, spread, write
from loragrid.paths import SCRIPTS


def measure(study: str, *, tokens: int | None, repeats: int, folder: Path) -> dict[str, Any]:
    """Times of all ways, `repeats` times each."""
    loose, packed = (_variant(study, folder, tokens=tokens, packing=packing) for packing in (False, True))
    data = prepare(loose, folder / "data")
    numbers = iter(range(10_000))

    def ours(path: Path) -> dict[str, Any]:
        cell, out = base_case(path), folder / str(next(numbers))
        stage = [sys.executable, SCRIPTS / "train.py", "--study", path, "--run", cell.run, "--data", data, "--out", out]
        taken = run(stage)
        record = json.loads((out / "record.json").read_text())
        pace = {"tokens_per_second": round(record["tokens"] / record["train_seconds"], 1), "steps": record["steps"]}
        return taken | _pace(record["loss_tokens"], record["train_seconds"]) | pace

    def peer() -> dict[str, Any]:
        out = folder / str(next(numbers))
        taken = run([sys.executable, "-m", "benchmarks.training_peer", "--study", loose, "--data", data, "--out", out])
        outcome = json.loads((out / "outcome.json").read_text())
        return taken | _pace(outcome["loss_tokens"], outcome["train_seconds"]) | {"steps": outcome["steps"]}

    taken = in_turn(
        {"loragrid": lambda: ours(loose), "bare TRL": peer, "loragrid, packed": lambda: ours(packed)}, repeats=repeats
    )
    pace = "loss_tokens_per_second"
    return {
        "study": Path(study).stem,
        "taken": taken,
        "ratios": {
            "bare TRL's process seconds to loragrid's": ratios(taken, "bare TRL", "loragrid"),
            "bare TRL's process CPU seconds to loragrid's": ratios(taken, "bare TRL", "loragrid", key="cpu_seconds"),
            "loragrid's pace to bare TRL's": ratios(taken, "loragrid", "bare TRL", key=pace),
            "loragrid's packed pace to bare TRL's padded": ratios(taken, "loragrid, packed", "bare TRL", key=pace),
        },
        "peak_pss_mib": {way: spread([one["peak_pss_mib"] for one in times]) for way, times in taken.items()},
    }


def _pace(loss_tokens: int, train_seconds: float) -> dict[str, float]:
    return {"train_seconds": round(train_seconds, 3), "loss_tokens_per_second": round(loss_tokens / train_seconds, 1)}


def _variant(study: str, folder: Path, *, tokens: int | None, packing: bool) -> Path:
    """The study's file with another budget or packing."""
    from loragrid.study.study_file import load_study

    settings = load_study(study).yaml
    settings["base_case"] |= {"packing": packing} | ({"budget": {"tokens": tokens}} if tokens else {})
    path = folder / ("packed.yaml" if packing else "loose.yaml")
    path.write_text(yaml.safe_dump(settings))
    return path


def base_case(path: Path) -> Any:
    """The first cell of a study file."""

    from loragrid.study.study_file import load_study

    return load_study(str(path)).cells[0]


def prepare(path: Path, out: Path) -> Path:
    """The base case's tokenised rows."""
    run([sys.executable, SCRIPTS / "prepare_data.py", "--study", path, "--data", base_case(path).data, "--out", out])
    return out


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="demo")
    parser.add_argument("--tokens", type=int, help="the budget of each run; the study's without it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "training.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.study, tokens=options.tokens, repeats=options.repeats, folder=Path(folder))
    write(options.out, found)


if __name__ == "__main__":
    main()
