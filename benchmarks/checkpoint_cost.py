"""What checkpoints cost: the share of training time spent saving, from the history of a finished study's runs.

Usage: python benchmarks/checkpoint_cost.py [--results results/demo] [--out benchmarks/results/checkpoint_cost.json]
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from study.durable import write_json
from study.errors import UserError, run_main
from study.provenance import device_info, git_state, versions


def checkpoint_cost(*, results: Path) -> dict[str, Any]:
    """Seconds spent saving and training by every run under `results/{study}/train`, over all of its sessions."""
    runs = [_cost(file) for file in sorted(results.glob("train/*/history.jsonl"))]
    if not runs:
        raise UserError(f"{results} holds no run: run the study first")
    shares = [run["share"] for run in runs]
    return {
        "what": "seconds spent saving checkpoints / seconds of training",
        "runs": runs,
        "share": {"min": min(shares), "median": statistics.median(shares), "max": max(shares)},
        "versions": versions(),
        "git": git_state(),
        "device": device_info(),
    }


def _cost(history: Path) -> dict[str, Any]:
    """A killed session could not say how long it saved: it counts on neither side."""
    ends = [event for event in map(json.loads, history.read_text().splitlines()) if "saving_seconds" in event]
    saving, seconds = (sum(end[key] for end in ends) for key in ("saving_seconds", "seconds"))
    return {"run": history.parent.name, "saving_seconds": saving, "seconds": seconds, "share": saving / seconds}


def main() -> None:
    """Measure, write, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results/demo"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/checkpoint_cost.json"))
    options = parser.parse_args()
    cost = checkpoint_cost(results=options.results)
    write_json(options.out, cost)
    share = cost["share"]
    print(
        f"saving takes {share['median']:.2%} of training ({share['min']:.2%} to {share['max']:.2%}, {len(cost['runs'])} runs)"
    )


if __name__ == "__main__":
    run_main(main)
