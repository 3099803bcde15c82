"""A search over made-up losses, without any model: what is drawn, pruned and kept can be tested in milliseconds.

As a command (`python tests/search_toys.py FOLDER`) it is a worker that tests start in numbers, and kill.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from study.search import Claim, Search

TUNE: dict[str, Any] = {
    "enabled": True,
    "trials": 24,
    "budget": {"steps": 18},
    "evaluations": 9,
    "heldout_rows": None,
    "objective": "heldout_loss",
    "seed": 3407,
    "startup_trials": 4,
    "pruner": {"min_evaluations": 1, "reduction_factor": 3},
    "workers": 1,
    "space": "toy",
    "spaces": {
        "toy": {
            "learning_rate": {"low": 1.0e-5, "high": 1.0, "log": True},
            "warmup_steps": {"low": 0, "high": 10, "log": False},
            "rank": {"choices": [4, 16, 64]},
        }
    },
}


def loss(point: dict[str, Any], part: int) -> float:
    """A bowl around a learning rate of 0.01 that deepens as training goes on."""
    off = abs(math.log10(point["learning_rate"]) + 2) + 0.02 * point["warmup_steps"] + 0.001 * point["rank"]
    return 1.0 + 0.5 * off + 2.0 * math.exp(-part / 3)


def train(search: Search, claim: Claim, *, pause: float = 0.0) -> None:
    """What the tune stage does with a claim, with made-up losses."""
    curve = []
    for part in range(1, search.tune["evaluations"] + 1):
        time.sleep(pause)
        found = loss(claim.point, part)
        curve.append((part, 2 * part, 100 * part, found))
        claim.trial.report(found, part)
        if part < search.tune["evaluations"] and claim.trial.should_prune():
            break
    facts = {"curve": curve, "steps": 2 * part, "planned_steps": 18, "samples": 1, "tokens": 100 * part, "seconds": 0.1}
    outcome = "complete" if part == search.tune["evaluations"] else "pruned"
    search.finish(claim, outcome=outcome, loss=curve[-1][3], reason=None, **facts)


def work(folder: Path, *, tune: dict[str, Any] | None = None, name: str = "toy", pause: float = 0.0) -> Search:
    """One worker's whole life."""
    search = Search(folder, name=name, tune=tune or TUNE)
    while search.settled() < search.tune["trials"]:
        with search.next() as claim:
            if claim is not None:
                train(search, claim, pause=pause)
        if claim is None:
            time.sleep(0.02)
    return search


if __name__ == "__main__":
    work(Path(sys.argv[1]), pause=float(sys.argv[2]))
