"""The pace of whole searches and of the plain script on the same trials. See benchmarks/tune.py."""

import gc
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measuring import spread
from loragrid.runtime.session import SessionClock, StopSignals
from loragrid.searching.search import Search
from loragrid.searching.search_result import trial_rows
from loragrid.searching.trials import TrialResult, TrialRunner
from loragrid.study.study_file import Study
from loragrid.training.backends.interface import Base
from loragrid.training.backends.trl import TrlBackend
from tune import run_trial

UNITS = ("seconds", "cpu_seconds", "cpu_seconds_but_garbage")
Spent = tuple[float, float, float]  # wall, CPU and garbage collection's CPU seconds of a trial
# Other seeds than those that the demo's pruner was chosen on (0 to 4).
FIRST_SEED = 100


def with_tune(study: Study, **changes: Any) -> Study:
    """The study with other values in `tune`."""
    return replace(study, yaml=study.yaml | {"tune": study.yaml["tune"] | changes})


def full(bench: TrialRunner, point: dict[str, Any], folder: Path) -> TrialResult:
    """A trial without pruning."""
    return bench.run(
        point,
        name="full",
        folder=folder,
        stop=StopSignals(),
        clock=SessionClock(None),
        should_prune=lambda part, loss: False,
    )


def measure_pace(study: Study, data: Path, folder: Path, *, searches: int) -> dict[str, Any]:
    """Trials per minute of whole searches and of the plain script, one row per sampler seed. A search's time includes claiming
    and recording trials, and loading the base."""
    seeds = range(FIRST_SEED, FIRST_SEED + searches)
    rows = [_one_pace(with_tune(study, seed=seed), data, folder / f"{seed}") for seed in seeds]
    return {
        "searches": rows,
        "plain_script_to_ours": {
            unit: {name: spread([row["ratio"][unit][name] for row in rows]) for name in ("reused", "reloaded")}
            for unit in UNITS
        },
        "largest_loss_difference_to_plain": max(row["largest_loss_difference_to_plain"] for row in rows),
    }


def _one_pace(study: Study, data: Path, folder: Path) -> dict[str, Any]:
    from benchmarks.tune_peer import Peer

    peer = Peer(study, data, folder)
    full(TrialRunner(study, data), {}, folder)  # warm-up: imports and compilation
    peer.run({})
    gc.collect()
    gc.freeze()  # the libraries' objects, as a search does after its first trial
    ways = {name: Searching(study, data, folder / name, reloads=name == "reloaded") for name in ("reused", "reloaded")}
    watch = Stopwatch(*ways, "plain")
    watch.timed("reused", ways["reused"].bench.load)
    apart, outcomes = [], Counter()
    for _ in range(study.tune.trials):
        row = watch.timed("reused", ways["reused"].trial)
        again = watch.timed("reloaded", ways["reloaded"].trial)
        outcomes[row["outcome"]] += 1
        if (row["point"], row["curve"]) != (again["point"], again["curve"]):
            raise RuntimeError(f"trial {row['slot']} on a base loaded again is another trial")
        if row["outcome"] not in ("complete", "pruned"):
            for name in ways:
                watch.spent[name].pop()  # a plain script would not prune there
            continue
        until = len(row["curve"]) if row["outcome"] == "pruned" else math.inf
        gc.unfreeze()  # in a plain script the collector visits all objects
        theirs = watch.timed("plain", peer.run, row["point"], measurements=until)
        gc.collect()
        gc.freeze()
        if theirs.evaluations != len(row["curve"]):
            raise RuntimeError(
                f"trial {row['slot']}: measured {len(row['curve'])} times, by the plain script {theirs.evaluations} times"
            )
        apart.append(abs(row["loss"] - theirs.loss))
    found = {"seed": study.tune.seed, "outcomes": dict(outcomes), **_pace(watch.spent)}
    found["largest_loss_difference_to_plain"] = max(apart)
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


class Stopwatch:
    """The seconds that each way has spent, trial by trial."""

    def __init__(self, *ways: str) -> None:
        self.spent: dict[str, list[Spent]] = {name: [] for name in ways}

    def timed(self, way: str, run: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Run and time a trial; return its result."""
        with _garbage_seconds() as garbage:
            began, cpu = time.monotonic(), time.process_time()
            result = run(*given, **named)
            self.spent[way].append((time.monotonic() - began, time.process_time() - cpu, sum(garbage)))
        return result


@contextmanager
def _garbage_seconds() -> Iterator[list[float]]:
    """CPU seconds of the garbage collections that happen in the block."""
    seconds: list[float] = []

    def watch(phase: str, _: Any) -> None:
        nonlocal began
        if phase == "start":
            began = time.process_time()
        else:
            seconds.append(time.process_time() - began)

    began = 0.0
    gc.callbacks.append(watch)
    try:
        yield seconds
    finally:
        gc.callbacks.remove(watch)


class LoadsAnew(TrlBackend):
    """A backend that, like unsloth, cannot remove its adapters: every trial loads the base again."""

    def release(self, base: Base, model: Any) -> None:
        """None: the base cannot be used again."""


class Searching:
    """A search that runs one trial after another, on one base or on a base loaded for each."""

    def __init__(self, study: Study, data: Path, folder: Path, *, reloads: bool) -> None:
        folder.mkdir(parents=True)
        self.search, self.bench = Search(folder, name="paced", tune=study.tune), TrialRunner(study, data)
        if reloads:
            self.bench.backend = LoadsAnew()

    def trial(self) -> dict[str, Any]:
        """Run the search's next trial from claim to record; its row."""
        with self.search.claim_next() as claim:
            run_trial(self.search, claim, self.bench, stop=StopSignals(), clock=SessionClock(None))
        return trial_rows(self.search)[claim.slot]


def measure_large_base(study: Study, data: Path, folder: Path, *, precision: str, trials: int) -> dict[str, Any]:
    """The pace on a larger base: a random Llama of 115 M parameters, one search with trials of about 400 tokens.

    In 32 bits the weights are mapped into memory, so loading is quick; in 4 bits, like the original study's bases, each
    loading quantises them. This shows what reusing the base can save; no real search has such short trials.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    settings, key = study.yaml, study.base_case.model
    tokenizer = AutoTokenizer.from_pretrained(study.models[key].path)
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)
    model = LlamaForCausalLM(config).to(torch.float32 if precision == "32bit" else torch.bfloat16)
    facts = {"parameters": model.num_parameters(), "precision": precision}
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    del model
    models = {key: settings["models"][key] | {"path": str(folder / "base")}}
    base_case = settings["base_case"] | {"precision": precision}
    large = replace(
        study, yaml=settings | {"models": models, "base_case": base_case, "grid": settings["grid"] | {"axes": {}}}
    )
    tiny = {"budget": {"tokens": 400}, "evaluations": 1, "validation_rows": 2, "trials": trials, "pruner": None}
    pace = measure_pace(with_tune(large, **tiny), data, folder / "pace", searches=1)
    return facts | tiny | pace


def _pace(spent: dict[str, list[Spent]]) -> dict[str, Any]:
    """Ratios over all trials of each search; the last one is of CPU seconds without garbage collection."""
    total = {name: [sum(part) for part in zip(*trials, strict=True)] for name, trials in spent.items()}
    costs = {
        "seconds": {name: wall for name, (wall, _, _) in total.items()},
        "cpu_seconds": {name: cpu for name, (_, cpu, _) in total.items()},
        "cpu_seconds_but_garbage": {name: cpu - garbage for name, (_, cpu, garbage) in total.items()},
    }
    return {
        "ratio": {
            unit: {name: cost["plain"] / cost[name] for name in ("reused", "reloaded")} for unit, cost in costs.items()
        },
        "seconds_cpu_and_garbage": {name: [[round(x, 3) for x in trial] for trial in spent[name]] for name in spent},
    }
