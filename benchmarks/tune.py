"""Savings and cost of the search's pruning, and its pace compared with Optuna and a plain TRL script.

    python -m benchmarks.tune [--study demo] [--seeds 5] [--trials 20] [--paced 3] [--large 4] [--out FILE.json]

Pruning: for each sampler seed the study's search runs, then every pruned trial again in full. The savings are the updates that
were not made. The winner is compared with the trial that would have won without pruning, and their gap with the noise, the
spread of that trial's loss over three training seeds.

Pace: three ways take turns, trial by trial, through whole searches: the search; the search with the base loaded again for each
trial; and `tune_peer`, which loads the base for each trial and uses SFTTrainer's own evaluation and a pruning callback, pruned
where the search pruned. All run in this process. Imports are not counted, the search's one loading of the base is. In a plain
script the garbage collector visits half a million objects of the libraries in every trial; a search freezes them. So each pace
is given twice, with and without the time of these collections.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import ONE_THREAD, RESULTS, write
from benchmarks.training import prepare

os.environ |= ONE_THREAD  # before torch is imported

from benchmarks.tune_pace import FIRST_SEED, full, measure_large_base, measure_pace, with_tune
from loragrid.runtime.provenance import git_state
from loragrid.runtime.session import SessionClock, StopSignals
from loragrid.searching.search import Search
from loragrid.searching.search_result import summarise_trials, trial_rows
from loragrid.searching.trials import TrialRunner
from loragrid.study.study_file import Study, load_study
from tune import run_trials

NOISE_SEEDS = 3
PARTS = ("pruning", "pace", "large_32bit", "large_4bit")


def with_seed(study: Study, seed: int) -> Study:
    """The study with another training seed."""
    return replace(study, yaml=study.yaml | {"base_case": study.yaml["base_case"] | {"seed": seed}})


def measure_pruning(study: Study, data: Path, folder: Path, *, seeds: int) -> dict[str, Any]:
    """One row per sampler seed, and their summary."""
    bench = TrialRunner(study, data)
    numbers = range(FIRST_SEED, FIRST_SEED + seeds)
    rows = [_one_search(with_tune(study, seed=seed), bench, folder / f"{seed}") for seed in numbers]
    return {
        "searches": rows,
        "steps_saved_mean": statistics.mean(row["steps_saved"] for row in rows),
        "same_winner": sum(row["same_winner"] for row in rows),
        "same_or_within_noise": sum(row["same_winner"] or row["gap"] <= row["noise"] for row in rows),
        "noise_95": noise_95(rows),
    }


def noise_95(rows: list[dict[str, Any]]) -> float:
    """The gap between two equally good trials that chance exceeds once in twenty: the searches' pooled noise times t."""
    from scipy.stats import t

    pooled = statistics.fmean(row["noise"] ** 2 for row in rows) ** 0.5
    return float(t.ppf(0.975, (NOISE_SEEDS - 1) * len(rows)) * pooled)


def _one_search(study: Study, bench: TrialRunner, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    search = Search(folder, name="pruned", tune=study.tune)
    run_trials(search, bench, stop=StopSignals(), clock=SessionClock(None))
    rows = trial_rows(search)
    found = summarise_trials(rows, search.space)
    losses = {}
    for row in rows:
        result = full(bench, row["point"], folder) if row["outcome"] == "pruned" else None
        if row["outcome"] == "complete" or (result and result.outcome == "complete"):
            losses[row["slot"]] = result.loss if result else row["loss"]
    best, winner = min(losses, key=lambda slot: losses[slot]), found["best"]["slot"]
    spread = _spread(study, bench, rows[best]["point"], folder)
    said = {
        "seed": study.tune.seed,
        "steps_saved": found["steps_saved"],
        "outcomes": found["outcomes"],
        "modelled": found["modelled"],
        "winner": winner,
        "winner_in_full": best,
        "same_winner": winner == best,
        "gap": losses[winner] - losses[best],
        "noise": 2**0.5 * spread,
    }
    print(json.dumps(said), file=sys.stderr, flush=True)
    return said


def _spread(study: Study, bench: TrialRunner, point: dict[str, Any], folder: Path) -> float:
    """Standard deviation of a trial's final loss over training seeds; of a difference of two trials it is √2 times that."""
    losses = []
    for seed in range(NOISE_SEEDS):
        seeded = TrialRunner(with_seed(study, seed), bench.data_folder)
        losses.append(full(seeded, point, folder).loss)
    return statistics.stdev(losses)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="demo")
    parser.add_argument("--seeds", type=int, default=5, help="searches that show what pruning saves")
    parser.add_argument("--trials", type=int, help="trials per search; the study's without it")
    parser.add_argument("--paced", type=int, default=3, help="searches to measure the pace on")
    parser.add_argument("--large", type=int, default=4, help="trials on a base that takes time to load")
    parser.add_argument("--out", type=Path, default=RESULTS / "tune.json")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    study = load_study(options.study)
    study = with_tune(study, trials=options.trials) if options.trials else study
    result = {"study": study.name, **_kept(options.out)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = prepare(study.path, folder / "data")
        parts = {
            "pruning": (options.seeds, lambda: measure_pruning(study, data, folder / "pruning", seeds=options.seeds)),
            "pace": (options.paced, lambda: measure_pace(study, data, folder / "pace", searches=options.paced)),
        }
        for precision in ("32bit", "4bit"):
            large = partial(measure_large_base, precision=precision, trials=options.large)
            parts[f"large_{precision}"] = (options.large, partial(large, study, data, folder / precision))
        for part, (wanted, measure) in parts.items():
            if wanted:
                result[part] = {"commit": git_state()["commit"]} | measure()
                write(options.out, result)


def _kept(path: Path) -> dict[str, Any]:
    """The parts that an earlier call measured, each with its commit; a 0 for the part's option keeps them."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return {part: found[part] for part in PARTS if part in found}


if __name__ == "__main__":
    main()
