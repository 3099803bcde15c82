"""Tune: search for a good setting with Optuna, pruning trials that fall behind.

    tune.py --study FILE --data FOLDER --out results/demo/tune [--cores N] [--session-minutes M]

The same command continues the search after a kill, and in a second terminal or Slurm job it adds a
worker. It leaves in the output folder: journal.log (Optuna's storage, which its dashboard opens),
trials/, trials.csv, curves.csv, winner/ (the best setting as a study file) and, last, tune.json.
"""

from loragrid.runtime.delegation.client import delegate_job

if __name__ == "__main__":
    delegate_job()  # only so that idle workers free the GPU's memory

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loragrid.errors import Paused, UserError, log_option, output_options, print_line, run_main, summary_line
from loragrid.records.failures import record_failures
from loragrid.records.history import minimum_logged
from loragrid.runtime.gpu_locks import take_one_gpu
from loragrid.runtime.progress_lines import working
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.runtime.session import SessionClock, StopSignals, add_session_options, session_end
from loragrid.runtime.torch_memory import set_up_torch
from loragrid.searching.objective import read_objective, trial_scorer
from loragrid.searching.result_files import write_result
from loragrid.searching.search import Claim, Search
from loragrid.searching.trial_results import TrialResult
from loragrid.searching.trials import TrialRunner, search_name
from loragrid.study.study_file import Study, load_study

POLL_SECONDS = 0.5


def tune(
    *, study: Study, data_folder: Path, out: Path, session_ends: float | None = None, summary: bool = True
) -> dict[str, Any] | None:
    """Work on the search until all trials are settled; with `summary` write and return its result.

    `session_ends`: end of the session, seconds of `time.monotonic()`. Raises `Paused` if a signal
    or that moment comes first; the interrupted trial is then tried again.
    """
    settings = study.tune
    if settings is None:
        raise UserError(
            f"{study.path.name}: tune: null. Fix: describe a search there, as config/studies/demo.yaml does."
        )
    set_up_torch(study.base_case.threads)
    clock = SessionClock(session_ends)
    with record_failures(out, run="tune"), StopSignals() as stop:
        (out / "failure.json").unlink(missing_ok=True)
        objective = read_objective(study)
        search = open_search(study, out, higher_is_better=objective.higher_is_better)
        # Only runs of the same study that have loaded the base tell how long that takes.
        loading = minimum_logged((out.parent / "train").glob("*/history.jsonl"), "loading_seconds") or 0.0
        if search.settled() < settings.trials and clock.too_late(loading=loading):
            stop.request("paused: session_minutes")
        runner = TrialRunner(study, data_folder, score=trial_scorer(study, objective, data_folder))
        if search.settled() < settings.trials and not stop.requested:
            items = {} if objective.items is None else {"items": objective.items}
            search.note_rows(runner.rows() | items)
        run_trials(search, runner, stop=stop, clock=clock)
        if stop.requested:
            done = f"{search.settled()} of {settings.trials} trials"
            raise Paused(f"search paused after {done} ({stop.requested}), run the same command to continue")
        if not summary:
            return None
        found = write_result(study, search, out)
        _print_result(study, found, out)
        return found


def open_search(study: Study, out: Path, *, higher_is_better: bool) -> Search:
    """The study's search, a new one or its continuation."""
    return Search(
        out,
        name=search_name(study),
        tune=study.tune,
        method=study.base_case.method,
        higher_is_better=higher_is_better,
    )


def run_trials(search: Search, runner: TrialRunner, *, stop: StopSignals, clock: SessionClock) -> None:
    """Run one open trial after another until all are settled or a stop is requested."""
    total = search.tune.trials
    if search.settled() < total and not stop.requested:
        with working("[tune] loading data and base"):
            runner.load()
    waiting = False
    while not stop.requested and search.settled() < total:
        if clock.too_late(with_evaluation=True):
            stop.request("paused: session_minutes")
            return
        with search.claim_next() as claim:
            if claim is not None:
                run_trial(search, claim, runner, stop=stop, clock=clock)
        if claim is None:
            # Do not leave: the other workers may die, and their trials would stay open.
            if not waiting:
                print_line("[tune] waiting for the last trials, which other workers hold")
            waiting = True
            time.sleep(POLL_SECONDS)


def run_trial(search: Search, claim: Claim, runner: TrialRunner, *, stop: StopSignals, clock: SessionClock) -> None:
    """Train a claimed trial, report each measurement to Optuna, and record how it ended."""

    def should_prune(part: int, loss: float) -> bool:
        search.report(claim, part, loss)
        return part < search.tune.evaluations and claim.trial.should_prune()

    name = f"trial {claim.slot}"
    try:
        with working(f"[tune] {name}"):
            result = runner.run(
                claim.point, name=name, folder=claim.folder, stop=stop, clock=clock, should_prune=should_prune
            )
    except BaseException as error:
        with suppress(
            OSError
        ):  # On a full disk nothing can be recorded; the trial then counts as left by a killed worker.
            search.finish(claim, outcome=f"left: {type(error).__name__}")
        raise
    if result.outcome == "diverged":
        # The sampler ranks pruned trials by their last report, and NaN ranks behind every number.
        last = result.curve[-1][0] if result.curve else 0
        search.report(claim, last + 1, math.nan)
    search.finish(claim, **asdict(result))
    print_line(f"[tune] {name}: {_described(result)} | {search.settled()}/{search.tune.trials}")


def _described(result: TrialResult) -> str:
    text = f"{result.outcome} at step {result.steps}"
    if result.planned_steps:
        text += f" of {result.planned_steps}"
    text += ", no loss" if result.loss is None else f", validation {result.loss:.4f}"
    if result.value not in (None, result.loss):
        text += f", objective {result.value:.4g}"
    return f"{text} ({result.reason})" if result.reason else text


def _print_result(study: Study, found: dict[str, Any], out: Path) -> None:
    best = found["best"]
    if not best:
        print_line(f"[tune] no trial was completed ({found['outcomes']}); {out / 'trials.csv'} has the reasons")
        return
    saved = f"{found['steps_saved']:.0%} of the steps saved by pruning"
    chosen, complete = found["chosen_on"], found["outcomes"]["complete"]
    side = "highest" if found["objective"]["higher_is_better"] else "lowest"
    name, rows = "loss", f"{chosen['validation']} validation rows"
    if study.tune.task is not None:
        name, rows = study.tune.objective, f"{chosen['items']} items that the final scores do not use"
    print_line(
        f"[tune] best: trial {best['slot']}, {name} {best['value']:.4g}, the {side} of {complete} complete trials on "
        f"{rows}; {saved}; {out / 'tune.json'}"
    )
    if not study.tune.enabled:
        print_line(
            "[tune] to train it at the full budget and compare it with the grid, set tune.enabled: true in "
            f"{study.path} and run `snakemake` again"
        )


@contextmanager
def further_workers(count: int, arguments: list[str]) -> Iterator[None]:
    """Start further workers, which end with the search or are stopped at the end of the block."""
    output, terminal = output_options()
    command = [sys.executable, str(Path(__file__).resolve()), *arguments, "--helper", *output]
    processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=terminal) for _ in range(count)]
    try:
        yield
    finally:
        # All are signalled before the first is waited for, so that they stop at the same time.
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def main() -> None:
    """Map the command line to a call of `tune`."""
    arguments = _parse_arguments()
    quiet_libraries()
    # Its further workers share the card.
    take_one_gpu()
    study = load_study(arguments.study)
    ends = session_end(arguments, session_minutes=study.training.session_minutes)
    passed = ["--study", arguments.study, "--data", str(arguments.data), "--out", str(arguments.out)]
    if ends is not None:
        passed += ["--session-ends", str(ends)]
    # A helper starts no helpers of its own.
    workers = 1
    if study.tune is not None and not arguments.helper:
        workers = min(study.tune.workers, max(1, arguments.cores // study.base_case.threads))
    with further_workers(workers - 1, passed):
        tune(
            study=study,
            data_folder=arguments.data,
            out=arguments.out,
            session_ends=ends,
            summary=not arguments.helper,
        )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=summary_line(__doc__), parents=[log_option()])
    parser.add_argument("--study", required=True, help="study file")
    parser.add_argument("--data", required=True, type=Path, help="folder of prepare_data for the base case's model")
    parser.add_argument("--out", required=True, type=Path, help="the search's folder")
    parser.add_argument("--cores", type=int, default=1, help="CPU cores to use; the study's tune.workers is the limit")
    add_session_options(parser)
    parser.add_argument(
        "--helper", action="store_true", help="work on trials only; the command that started it writes the result"
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
