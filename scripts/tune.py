"""Tune: search for a good setting with Optuna, pruning trials that fall behind, on a base that is loaded once.

    tune.py --study FILE --data FOLDER --out results/demo/tune [--cores N] [--session-minutes M]

The same command in a second terminal or Slurm job works on the same search; after a kill it goes on. Leaves in the output
folder journal.log (Optuna's storage, which its dashboard opens), trials/, trials.csv, curves.csv, winner/ (the best setting
as a study file) and, last, tune.json.
"""

import argparse
import csv
import io
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.errors import Paused, UserError, output_options, print_line, run_main
from loragrid.records.failures import failures_told
from loragrid.records.history import least_told
from loragrid.runtime.atomic_files import write_json, write_text
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import device_info, git_state, versions
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.runtime.session import SessionClock, StopSignals, add_session_options, session_end
from loragrid.searching.search import Claim, Search
from loragrid.searching.search_result import findings, importance, trial_rows
from loragrid.searching.trials import TrialBench
from loragrid.study.search_point import search_name, settings_sha256
from loragrid.study.study_file import Study, load_study
from loragrid.study.winner import SCHEMA, write_winner

POLL_SECONDS = 0.5


def tune(
    *, study: Study, data_folder: Path, out: Path, session_ends: float | None = None, sums_up: bool = True
) -> dict[str, Any] | None:
    """Work on the search until every trial is settled, by this worker or others; write and return its result if `sums_up`.

    `session_ends`: when the session ends, seconds of `time.monotonic()`. Raises `Paused` when a signal or that moment
    came first; the trial that was running is then tried again.
    """
    settings = study.tune
    if settings is None:
        raise UserError(f"{study.path.name}: tune is null: write a search there, as config/studies/demo.yaml does")
    _set_threads(study.training.threads)
    clock = SessionClock(session_ends)
    with failures_told(out, run="tune"), StopSignals() as stop:
        (out / "failure.json").unlink(missing_ok=True)
        search = Search(out, name=search_name(study), tune=settings)
        # What loading a base took the runs of the same study is all that can be known before it is loaded here.
        loading = least_told((out.parent / "train").glob("*/history.jsonl"), "loading_seconds") or 0.0
        if search.settled() < settings.trials and clock.too_late(loading=loading):
            stop.request("paused: session_minutes")
        work(search, TrialBench(study, data_folder), stop=stop, clock=clock)
        if stop.requested:
            done = f"{search.settled()} of {settings.trials} trials"
            raise Paused(f"search paused after {done} ({stop.requested}), run the same command to go on")
        return write_result(study, search, out) if sums_up else None


def work(search: Search, bench: TrialBench, *, stop: StopSignals, clock: SessionClock) -> None:
    """Take one trial after another; wait while the last ones are others', since those may die and leave them."""
    total = search.tune.trials
    if search.settled() < total and not stop.requested:
        bench.ready()
    waiting = False
    while not stop.requested and search.settled() < total:
        if clock.too_late(with_evaluation=True):
            stop.request("paused: session_minutes")
            return
        with search.next() as claim:
            if claim is not None:
                run_trial(search, claim, bench, stop=stop, clock=clock)
        if claim is None:
            if not waiting:
                print_line("[tune] the last trials are other workers': waiting for them")
            waiting = True
            time.sleep(POLL_SECONDS)


def run_trial(search: Search, claim: Claim, bench: TrialBench, *, stop: StopSignals, clock: SessionClock) -> None:
    """Train a claimed trial, report each measurement to Optuna, and record how it ended."""

    def listen(part: int, loss: float) -> bool:
        claim.trial.report(loss, part)
        return part < search.tune.evaluations and claim.trial.should_prune()

    try:
        result = bench.run(
            claim.point, name=f"trial {claim.slot}", folder=claim.folder, stop=stop, clock=clock, listen=listen
        )
    except BaseException as error:
        with suppress(OSError):  # a full disk takes no word; the trial then counts as left by a killed worker
            search.finish(claim, outcome=f"left: {type(error).__name__}")
        raise
    if result.outcome == "diverged":
        last = result.curve[-1][0] if result.curve else 0
        claim.trial.report(float("nan"), last + 1)
    search.finish(claim, **asdict(result))
    loss = "no loss" if result.loss is None else f"held-out {result.loss:.4f}"
    at = f"step {result.steps}" + (f" of {result.planned_steps}" if result.planned_steps else "")
    why = f" ({result.reason})" if result.reason else ""
    print_line(
        f"[tune] trial {claim.slot}: {result.outcome} at {at}, {loss}{why} | {search.settled()}/{search.tune.trials}"
    )


def write_result(study: Study, search: Search, out: Path) -> dict[str, Any]:
    """Write the tables, the winner's study file and, last, tune.json."""
    rows = trial_rows(search)
    found = findings(rows, search.space)
    winner = None
    if found["best"]:
        path, run = write_winner(study, found["best"]["point"], out)
        winner = {"run": run, "study_file": str(path.relative_to(out))}
    write_csv(out / "trials.csv", [_flat(row) for row in rows])
    columns = ("slot", "part", "step", "tokens", "loss")
    write_csv(out / "curves.csv", [dict(zip(columns, (row["slot"], *point))) for row in rows for point in row["curve"]])
    kept = ("trials", "budget", "evaluations", "heldout_rows", "objective", "seed", "startup_trials", "pruner", "space")
    result = {
        "schema": SCHEMA,
        "study": study.name,
        "search": search.name,
        "settings_sha256": settings_sha256(study),
        "settings": {key: study.yaml["tune"][key] for key in kept} | {"parameters": search.space},
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
    if found["best"]:
        saved = f"{found['steps_saved']:.0%} of the steps saved by pruning"
        print_line(
            f"[tune] best: trial {found['best']['slot']}, held-out {found['best']['loss']:.4f}; {saved}; {out / 'tune.json'}"
        )
        if not study.tune.enabled:
            print_line(
                f"[tune] to train it at the full budget and compare it with the grid: tune.enabled: true in {study.path}, "
                "and `snakemake` again"
            )
    else:
        print_line(f"[tune] no trial was completed ({found['outcomes']}): see {out / 'trials.csv'} for the reasons")
    return result


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows with the same keys as CSV; with none, an empty file."""
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, buffer.getvalue())


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("point", "curve")} | row["point"]


@contextmanager
def helpers(count: int, arguments: list[str]) -> Iterator[None]:
    """Further workers on this machine, each this command as a helper. They end with the search, or are told to stop."""
    output, terminal = output_options()
    command = [sys.executable, str(Path(__file__).resolve()), *arguments, "--helper", *output]
    processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=terminal) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True, help="study file")
    parser.add_argument(
        "--data", required=True, type=Path, help="folder that prepare_data left for the base case's model"
    )
    parser.add_argument("--out", required=True, type=Path, help="the search's folder")
    parser.add_argument("--cores", type=int, default=1, help="CPU cores to use, by at most the study's tune.workers")
    add_session_options(parser)
    parser.add_argument(
        "--helper", action="store_true", help="one worker that leaves summing up to the command that started it"
    )
    arguments = parser.parse_args()
    quiet_libraries()
    study = load_study(arguments.study)
    ends = session_end(arguments, session_minutes=study.training.session_minutes)
    passed = ["--study", arguments.study, "--data", str(arguments.data), "--out", str(arguments.out)]
    passed += ["--session-ends", str(ends)] if ends is not None else []
    workers = 1 if study.tune is None else min(study.tune.workers, max(1, arguments.cores // study.training.threads))
    with helpers(0 if arguments.helper else workers - 1, passed):
        tune(
            study=study,
            data_folder=arguments.data,
            out=arguments.out,
            session_ends=ends,
            sums_up=not arguments.helper,
        )


if __name__ == "__main__":
    run_main(main)
