"""What the search's pruning saves and costs, and its pace beside Optuna with a plain TRL script.

    python benchmarks/tune.py [--study demo] [--seeds 5] [--trials 20] [--paced 6] [--large 4] [--out FILE.json]

Pruning: for each sampler seed a search as the study file has it, then every pruned trial again in full. Saved are the
updates that were not made; the winner is compared with the trial that would have won without pruning, and their gap with
the noise, the spread of that trial's loss over three training seeds. Pace: the first trials of one search, in full, by
the search and by `tune_peer` (base loaded for each trial, SFTTrainer's own evaluation and pruning callback), both in this
process, imports not counted, in turn (CPU seconds beside wall seconds: other work on the machine slows both).
"""

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import ONE_THREAD, RESULTS, spread, write
from training import prepare

os.environ |= ONE_THREAD  # before torch is imported

from study.search import Search
from study.search_result import findings, trial_rows
from study.session import SessionClock, StopSignals
from study.study_file import Study, load_study
from study.trial_bench import TrialBench, TrialResult
from tune import run_trial, work

NOISE_SEEDS = 3


def with_tune(study: Study, **changes: Any) -> Study:
    """The study with other values in `tune`, its search on."""
    return replace(study, settings=study.settings | {"tune": study.settings["tune"] | changes})


def with_seed(study: Study, seed: int) -> Study:
    """The study whose trials train under another seed."""
    return replace(study, settings=study.settings | {"base_case": study.settings["base_case"] | {"seed": seed}})


def full(bench: TrialBench, point: dict[str, Any], folder: Path) -> TrialResult:
    """A trial without pruning."""
    return bench.run(
        point, name="full", folder=folder, stop=StopSignals(), clock=SessionClock(None), listen=lambda part, loss: False
    )


def measure_pruning(study: Study, data: Path, folder: Path, *, seeds: int) -> dict[str, Any]:
    """One row per sampler seed, and what they come to."""
    bench = TrialBench(study, data)
    rows = [_one_search(with_tune(study, seed=seed), bench, folder / f"{seed}") for seed in range(seeds)]
    return {
        "searches": rows,
        "steps_saved_mean": statistics.mean(row["steps_saved"] for row in rows),
        "same_winner": sum(row["same_winner"] for row in rows),
        "same_or_within_noise": sum(row["same_winner"] or row["gap"] <= row["noise"] for row in rows),
        "noise_95": noise_95(rows),
    }


def noise_95(rows: list[dict[str, Any]]) -> float:
    """The gap of two equally good trials that luck of the seed exceeds once in twenty: the searches' noise, pooled, times t."""
    from scipy.stats import t

    pooled = statistics.fmean(row["noise"] ** 2 for row in rows) ** 0.5
    return float(t.ppf(0.975, (NOISE_SEEDS - 1) * len(rows)) * pooled)


def _one_search(study: Study, bench: TrialBench, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    search = Search(folder, name="pruned", tune=study.settings["tune"])
    work(search, bench, stop=StopSignals(), clock=SessionClock(None))
    rows = trial_rows(search)
    found = findings(rows, search.space)
    losses = {}
    for row in rows:
        result = full(bench, row["point"], folder) if row["outcome"] == "pruned" else None
        if row["outcome"] == "complete" or (result and result.outcome == "complete"):
            losses[row["slot"]] = result.loss if result else row["loss"]
    best, winner = min(losses, key=lambda slot: losses[slot]), found["best"]["slot"]
    spread = _spread(study, bench, rows[best]["point"], folder)
    said = {
        "seed": study.settings["tune"]["seed"],
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


def _spread(study: Study, bench: TrialBench, point: dict[str, Any], folder: Path) -> float:
    """Standard deviation of a trial's final loss over training seeds; of a difference of two trials it is √2 times that."""
    losses = []
    for seed in range(NOISE_SEEDS):
        seeded = TrialBench(with_seed(study, seed), bench.data_folder)
        losses.append(full(seeded, point, folder).loss)
    return statistics.stdev(losses)


def measure_pace(study: Study, data: Path, folder: Path, *, trials: int) -> dict[str, Any]:
    """Trials per minute of the search, claim and record included, and of the plain script: same settings, in full, in turn."""
    from tune_peer import Peer

    unpruned = with_tune(study, trials=trials, pruner=None)
    ways = {name: Searching(unpruned, data, folder / name) for name in ("reused", "reloaded")}
    peer = Peer(unpruned, data, folder)
    for way in ways.values():
        full(way.bench, {}, folder)  # what is imported and compiled once
    peer.run({})
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in (*ways, "plain")}
    losses: dict[str, list[float]] = {name: [] for name in spent}

    def timed(name: str, run: Callable[[], float]) -> None:
        began, cpu = time.monotonic(), time.process_time()
        losses[name].append(run())
        spent[name].append((time.monotonic() - began, time.process_time() - cpu))

    for _ in range(trials):
        gc.freeze()  # as in a process that does nothing but search; a plain script has nothing frozen
        timed("reused", ways["reused"].trial)
        timed("reloaded", lambda: ways["reloaded"].trial(reload=True))
        gc.unfreeze()
        timed("plain", lambda: peer.run(ways["reused"].point).loss)
    return _paces(spent, losses)


class Searching:
    """A search with its bench, one trial after another."""

    def __init__(self, study: Study, data: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.search, self.bench = Search(folder, name="paced", tune=study.settings["tune"]), TrialBench(study, data)
        self.point: dict[str, Any] = {}

    def trial(self, *, reload: bool = False) -> float:
        """The search's next trial from claim to record, on a base loaded anew if `reload`; its final loss."""
        if reload:
            self.bench.drop_base()
        with self.search.next() as claim:
            run_trial(self.search, claim, self.bench, stop=StopSignals(), clock=SessionClock(None))
        self.point = claim.point
        return trial_rows(self.search)[claim.slot]["loss"]


def measure_large_base(study: Study, data: Path, folder: Path, *, trials: int) -> dict[str, Any]:
    """The pace where loading costs something: a random Llama of 115 M parameters, trials of about 400 tokens, measured once.

    Made up to show what reusing the base saves; such short trials are nobody's search.
    """
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    settings, key = study.settings, study.settings["base_case"]["model"]
    tokenizer = AutoTokenizer.from_pretrained(settings["models"][key]["path"])
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes))
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    models = {key: settings["models"][key] | {"path": str(folder / "base")}}
    large = replace(study, settings=settings | {"models": models})
    tiny = {"budget": {"tokens": 400}, "evaluations": 1, "heldout_rows": 2}
    facts = {"parameters": model.num_parameters(), "bytes": sum(p.numel() * 4 for p in model.parameters())} | tiny
    del model
    return facts | measure_pace(with_tune(large, **tiny), data, folder / "pace", trials=trials)


def _paces(spent: dict[str, list[tuple[float, float]]], losses: dict[str, list[float]]) -> dict[str, Any]:
    """`spent`: per way (wall seconds, CPU seconds) of every trial."""
    ratio = {
        unit: {
            name: [plain[place] / ours[place] for plain, ours in zip(spent["plain"], spent[name])]
            for name in ("reused", "reloaded")
        }
        for place, unit in enumerate(("seconds", "cpu_seconds"))
    }
    return {
        "trials": len(spent["plain"]),
        "seconds_and_cpu_seconds": {name: [[round(x, 3) for x in pair] for pair in spent[name]] for name in spent},
        "plain_script_to_ours": {
            unit: {name: spread(values) for name, values in of_unit.items()} for unit, of_unit in ratio.items()
        },
        "largest_loss_difference_to_plain": max(abs(a - b) for a, b in zip(losses["reused"], losses["plain"])),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="demo")
    parser.add_argument(
        "--seeds", type=int, default=5, help="searches, each with a sampler seed of its own; 0 for none"
    )
    parser.add_argument("--trials", type=int, help="trials per search; the study's without it")
    parser.add_argument("--paced", type=int, default=6, help="trials to measure the pace on; 0 for none")
    parser.add_argument("--large", type=int, default=4, help="trials on a base that takes time to load; 0 for none")
    parser.add_argument("--out", type=Path, default=RESULTS / "tune.json")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    study = load_study(options.study)
    study = with_tune(study, trials=options.trials) if options.trials else study
    result: dict[str, Any] = {"study": study.name}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = prepare(study.path, folder / "data")
        if options.seeds:
            result["pruning"] = measure_pruning(study, data, folder / "pruning", seeds=options.seeds)
        if options.paced:
            result["pace"] = measure_pace(study, data, folder / "pace", trials=options.paced)
        if options.large:
            result["large_base"] = measure_large_base(study, data, folder / "large", trials=options.large)
    write(options.out, result)


if __name__ == "__main__":
    main()
