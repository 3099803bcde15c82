"""Tune: search for a good setting with Optuna, pruning trials that fall behind.

    tune.py --study FILE --data FOLDER --out results/demo/tune [--cores N] [--session-minutes M]

The same command continues the search after a kill, and in a second terminal or Slurm job it adds a
worker. It leaves in the output folder: journal.log (Optuna's storage, which its dashboard opens),
trials/, trials.csv, curves.csv, winner/ (the best setting as a study file) and, last, tune.json.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.errors import Paused, UserError, log_option, output_options, print_line, run_main
from loragrid.records.failures import record_failures
from loragrid.records.history import minimum_logged
from loragrid.runtime.atomic_files import write_csv, write_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import device_info, git_state, versions
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.runtime.session import SessionClock, StopSignals, add_session_options, session_end
from loragrid.searching.search import Claim, Search
from loragrid.searching.search_result import importance, summarise_trials, trial_rows
from loragrid.searching.trials import TrialResult, TrialRunner, search_name
from loragrid.study.search_point import settings_sha256
from loragrid.study.study_file import Study, load_study
from loragrid.study.winner import SCHEMA, write_winner

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
    _set_threads(study.base_case.threads)
    clock = SessionClock(session_ends)
    with record_failures(out, run="tune"), StopSignals() as stop:
        (out / "failure.json").unlink(missing_ok=True)
        search = Search(out, name=search_name(study), tune=settings)
        # Only runs of the same study that have loaded the base tell how long that takes.
        loading = minimum_logged((out.parent / "train").glob("*/history.jsonl"), "loading_seconds") or 0.0
        if search.settled() < settings.trials and clock.too_late(loading=loading):
            stop.request("paused: session_minutes")
        run_trials(search, TrialRunner(study, data_folder), stop=stop, clock=clock)
        if stop.requested:
            done = f"{search.settled()} of {settings.trials} trials"
            raise Paused(f"search paused after {done} ({stop.requested}), run the same command to continue")
        return write_result(study, search, out) if summary else None


def run_trials(search: Search, runner: TrialRunner, *, stop: StopSignals, clock: SessionClock) -> None:
    """Run one open trial after another until all are settled or a stop is requested."""
    total = search.tune.trials
    if search.settled() < total and not stop.requested:
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
        claim.trial.report(loss, part)
        return part < search.tune.evaluations and claim.trial.should_prune()

    name = f"trial {claim.slot}"
    try:
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
        claim.trial.report(float("nan"), last + 1)
    search.finish(claim, **asdict(result))
    print_line(f"[tune] {name}: {_described(result)} | {search.settled()}/{search.tune.trials}")


def _described(result: TrialResult) -> str:
    text = f"{result.outcome} at step {result.steps}"
    if result.planned_steps:
        text += f" of {result.planned_steps}"
    text += ", no loss" if result.loss is None else f", held-out {result.loss:.4f}"
    return f"{text} ({result.reason})" if result.reason else text


def write_result(study: Study, search: Search, out: Path) -> dict[str, Any]:
    """Write the tables, the winner's study file and, last, tune.json, whose content is returned."""
    # tune.json comes last: Snakemake takes it as the sign that all other files are there.
    rows = trial_rows(search)
    found = summarise_trials(rows, search.space)
    winner = None
    if found["best"]:
        path, run = write_winner(study, found["best"]["point"], out)
        winner = {"run": run, "study_file": str(path.relative_to(out))}
    write_csv(out / "trials.csv", [_flat(row) for row in rows])
    write_csv(out / "curves.csv", _curve_rows(rows))
    shown = {key: value for key, value in study.yaml["tune"].items() if key not in ("enabled", "workers", "spaces")}
    result = {
        "schema": SCHEMA,
        "study": study.name,
        "search": search.name,
        "settings_sha256": settings_sha256(study),
        "settings": shown | {"parameters": search.space},
        **found,
        "importance": importance(search),
        "winner": winner,
        "rows": rows,
        "versions": versions(),
        "git": git_state(),
        "device": device_info(),
        "code": code_digest("tune"),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(out / "tune.json", result)
    _print_result(study, found, out)
    return result


def _print_result(study: Study, found: dict[str, Any], out: Path) -> None:
    best = found["best"]
    if not best:
        print_line(f"[tune] no trial was completed ({found['outcomes']}); {out / 'trials.csv'} has the reasons")
        return
    saved = f"{found['steps_saved']:.0%} of the steps saved by pruning"
    print_line(f"[tune] best: trial {best['slot']}, held-out {best['loss']:.4f}; {saved}; {out / 'tune.json'}")
    if not study.tune.enabled:
        print_line(
            "[tune] to train it at the full budget and compare it with the grid, set tune.enabled: true in "
            f"{study.path} and run `snakemake` again"
        )


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("point", "curve")} | row["point"]


def _curve_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    columns = ("slot", "part", "step", "tokens", "loss")
    return [dict(zip(columns, (row["slot"], *point))) for row in rows for point in row["curve"]]


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


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def main() -> None:
    """Map the command line to a call of `tune`."""
    arguments = _parse_arguments()
    quiet_libraries()
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[log_option()])
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
