"""Kill a training run at random moments, start it again until it ends, and compare it with one that was left alone.

A session is a fork of this process in a process group of its own, so that it costs no imports and SIGKILL hits all of
it. Half of the kills come at a random time, half a random moment after a save has begun.
"""

import csv
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.checkpoint import UNFINISHED
from study.durable import sha256_file
from study.errors import Failed
from study.history import History
from study.losses import last_position

PARTS = ("adapter", "loss_rows", "learning_rates", "sample_order", "random_states")
POLL_SECONDS = 0.0005
# A save of a small model lasts some milliseconds; this is longer, so that its every part can be hit.
LONGEST_SAVE_SECONDS = 0.05

Train = Callable[[Path], None]


@dataclass
class Tally:
    """What the kills did. `replayed`: steps that each kill made be done again. `outside_training`: kills that came while
    the base was loading or the finished run was being put down."""

    in_a_save: int = 0
    outside_training: int = 0
    replayed: list[int] = field(default_factory=list)


def certify_resume(
    train: Train, *, work: Path, kills: int, seed: int, save_steps: int, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Train a reference with `train(folder)`, then runs that are killed until `kills` kills have hit; compare them all."""
    reference = work / "reference"
    began = time.monotonic()
    _wait(_fork(train, reference), reference)
    session_seconds = time.monotonic() - began
    expected = evidence(reference)
    draw, tally, different, runs = random.Random(seed), Tally(), {part: 0 for part in PARTS}, 0
    while len(tally.replayed) < kills:
        out = work / f"run-{runs}"
        _train_with_kills(train, out, kills=kills, draw=draw, session_seconds=session_seconds, tally=tally)
        runs += 1
        found = evidence(out)
        for part in PARTS:
            different[part] += found[part] != expected[part]
        say(f"{len(tally.replayed)} of {kills} kills, {runs} runs ended, different: {sum(different.values())}")
        shutil.rmtree(out)
    most = max(tally.replayed, default=0)
    return {
        "kills": len(tally.replayed),
        "kills_in_a_save": tally.in_a_save,
        "kills_outside_training": tally.outside_training,
        "runs": runs,
        "steps_replayed": sum(tally.replayed),
        "most_steps_replayed": most,
        "save_steps": save_steps,
        "equal": {part: different[part] == 0 for part in PARTS},
        "holds": not any(different.values()) and most <= save_steps,
        "reference_seconds": round(session_seconds, 3),
        "seconds": round(time.monotonic() - began, 3),
    }


def evidence(out: Path) -> dict[str, Any]:
    """What must be equal between two runs, from a finished run's folder. Seconds are left out, as they never are."""
    with open(out / "losses.csv", newline="", encoding="utf-8") as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    last = History(out / "history.jsonl").lines()[-1]
    return {
        "adapter": {file.name: sha256_file(file) for file in sorted((out / "adapter").iterdir())},
        "loss_rows": rows,
        "learning_rates": [row["learning_rate"] for row in rows],
        "sample_order": last["order_sha256"],
        "random_states": last["random_sha256"],
    }


def _train_with_kills(
    train: Train, out: Path, *, kills: int, draw: random.Random, session_seconds: float, tally: Tally
) -> None:
    """One run to its end. Drawn moments that come after the end hit nothing and are not counted."""
    while True:
        child = _fork(train, out)
        if len(tally.replayed) >= kills:
            _wait(child, out)
            break
        began = time.monotonic()
        if draw.random() < 0.5:
            moment, in_a_save = began + draw.uniform(0, session_seconds), False
            alive = _sleep_while(child, out, lambda moment=moment: time.monotonic() < moment)
        else:
            pause, in_a_save = draw.uniform(0, LONGEST_SAVE_SECONDS), True
            skipped = draw.randrange(3)  # which of the next saves
            alive = _until_save(child, out, skipped=skipped)
            moment = time.monotonic() + pause
            alive = alive and _sleep_while(child, out, lambda moment=moment: time.monotonic() < moment)
        if not alive:
            break
        os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):  # it ended in the instant before
            _check(status, out)
            break
        tally.in_a_save += in_a_save and _is_saving(out)
        _note_kill(out, tally)


def _note_kill(out: Path, tally: Tally) -> None:
    """Count the steps that the next session will replay: those after the newest checkpoint."""
    lines = History(out / "history.jsonl").lines()
    training = bool(lines) and lines[-1]["event"] == "start"
    step = last_position(out / "losses.csv")[0] if training else 0
    saved = [int(path.name.removeprefix("checkpoint-")) for path in (out / "checkpoints").glob("checkpoint-*")]
    tally.outside_training += not training
    tally.replayed.append(max(0, step - max(saved, default=0)) if training else 0)


def _until_save(child: int, out: Path, *, skipped: int) -> bool:
    """Wait for the beginning of a save, after letting `skipped` pass; False if the session ended first."""
    for turn in range(skipped + 1):
        if not _sleep_while(child, out, lambda: not _is_saving(out)):
            return False
        if turn < skipped and not _sleep_while(child, out, lambda: _is_saving(out)):
            return False
    return True


def _is_saving(out: Path) -> bool:
    try:
        return any(name.startswith(UNFINISHED) for name in os.listdir(out / "checkpoints"))
    except FileNotFoundError:  # no save yet, or the run has just finished
        return False


def _sleep_while(child: int, out: Path, waiting: Callable[[], bool]) -> bool:
    """Sleep while `waiting()`; False as soon as the session has ended by itself."""
    while waiting():
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            _check(status, out)
            return False
        time.sleep(POLL_SECONDS)
    return True


def _log(out: Path) -> Path:
    return out.with_name(f"{out.name}.log")


def _fork(train: Train, out: Path) -> int:
    """Start a session as a fork in its own process group, its output in `out`'s log; returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = _log(out)
    log.parent.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        with suppress(OSError):  # the child may have done it itself, or be gone
            os.setpgid(child, child)
        return child
    status = 1
    try:
        os.setpgid(0, 0)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        train(out)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # never back into the caller's stack, whose files and tests are not this process's


def _wait(child: int, out: Path) -> None:
    _check(os.waitpid(child, 0)[1], out)


def _check(status: int, out: Path) -> None:
    if status:
        last = _log(out).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise Failed(f"a session that nobody killed ended with status {os.waitstatus_to_exitcode(status)}: {last}")
