"""Cost and benefit of checkpoints: time spent saving by interval, seconds to resume, updates replayed after a kill.

    python -m benchmarks.checkpoint [--study demo] [--intervals 5 20 40] [--repeats 2] [--out FILE.json]

The base case is trained to the end once per interval; its history says which share of the training time went into saving.
Then a run is killed (SIGKILL) halfway between two saves and started again. Measured are the seconds from the start of the
second process to its first new update, compared with a fresh run, and the updates that are repeated.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measuring import ONE_THREAD, RESULTS, in_turn, run, spread, write
from benchmarks.training import base_case, prepare
from loragrid.paths import SCRIPTS
from loragrid.study.study_file import load_study


def measure(study: str, *, intervals: list[int], repeats: int, folder: Path) -> dict[str, Any]:
    """Cost by interval, and one kill per repeat at the longest interval."""
    files = {interval: _variant(study, folder, interval) for interval in intervals}
    data = prepare(files[intervals[0]], folder / "data")
    numbers = iter(range(10_000))

    def command(interval: int, out: Path) -> list[Any]:
        path = files[interval]
        stage = [sys.executable, SCRIPTS / "train.py", "--study", path, "--run", base_case(path).run]
        return [*stage, "--data", data, "--out", out]

    def whole(interval: int) -> dict[str, Any]:
        out = folder / str(next(numbers))
        return run(command(interval, out)) | _saving(out)

    taken = in_turn({str(interval): lambda i=interval: whole(i) for interval in intervals}, repeats=repeats)
    longest = max(intervals)
    kills = [
        _killed(command(longest, folder / f"killed{turn}"), folder / f"killed{turn}", longest)
        for turn in range(repeats)
    ]
    return {
        "study": Path(study).stem,
        "taken": taken,
        "share_spent_saving": {name: spread([one["share"] for one in runs]) for name, runs in taken.items()},
        "kills": kills,
        "seconds_to_resume": spread([kill["seconds_to_resume"] for kill in kills]),
        "seconds_to_begin": spread([kill["seconds_to_begin"] for kill in kills]),
        "updates_replayed": spread([kill["updates_replayed"] for kill in kills]),
    }


def _variant(study: str, folder: Path, interval: int) -> Path:
    settings = load_study(study).yaml
    settings["training"] |= {"save_steps": interval, "save_minutes": 1000}
    path = folder / f"save{interval}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def _saving(out: Path) -> dict[str, Any]:
    """Seconds of saving and of training, summed over all sessions of a finished run."""
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    ends = [event for event in events if event["event"] == "end"]
    saving, seconds = (sum(end.get(key) or 0.0 for end in ends) for key in ("saving_seconds", "seconds"))
    return {"saving_seconds": saving, "train_seconds": seconds, "share": saving / seconds}


def _killed(command: list[Any], out: Path, interval: int) -> dict[str, Any]:
    """Kill a run half an interval after its first save, and continue it."""
    began, first = time.monotonic(), interval + interval // 2
    to_begin, _ = _watch(command, out, began, until_step=first, kill=True)
    last = _last_step(out)
    to_resume, resumed_at = _watch(command, out, time.monotonic(), until_step=10**9, kill=False)
    return {"seconds_to_begin": to_begin, "seconds_to_resume": to_resume, "updates_replayed": last - resumed_at + 1}


def _watch(command: list[Any], out: Path, began: float, *, until_step: int, kill: bool) -> tuple[float, int]:
    """Seconds to the first update of this process, and its number. Waits for the process, or kills it at a step."""
    before = (out / "losses.csv").stat().st_mtime_ns if (out / "losses.csv").exists() else 0
    said = open(os.devnull, "w")
    process = subprocess.Popen([str(part) for part in command], env=os.environ | ONE_THREAD, stdout=said, stderr=said)
    first: tuple[float, int] | None = None
    while process.poll() is None:
        time.sleep(0.005)
        changed = (out / "losses.csv").exists() and (out / "losses.csv").stat().st_mtime_ns != before
        if changed and first is None and (step := _last_step(out)):
            first = time.monotonic() - began, step
        if kill and changed and _last_step(out) >= until_step:
            process.send_signal(signal.SIGKILL)
    if first is None or process.wait() not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run in {out} failed: its failure.json says why")
    return first


def _last_step(out: Path) -> int:
    try:
        with open(out / "losses.csv", newline="") as file:
            return max((int(row["step"]) for row in csv.DictReader(file) if row["kind"] == "train"), default=0)
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return 0  # being written


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="demo")
    parser.add_argument("--intervals", type=int, nargs="*", default=[5, 20, 40])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "checkpoint.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.study, intervals=options.intervals, repeats=options.repeats, folder=Path(folder))
    write(options.out, found)


if __name__ == "__main__":
    main()
