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

from loragrid.errors import Failed
from loragrid.records.history import History
from loragrid.runtime.atomic_files import sha256_file
from loragrid.training.checkpoints import UNFINISHED

PARTS = ("adapter", "loss_rows", "learning_rates", "sample_order", "random_states")
POLL_SECONDS = 0.0005
# A save of a small model lasts some milliseconds; this is longer, so that its every part can be hit.
LONGEST_SAVE_SECONDS = 0.05

Train = Callable[[Path], None]


@dataclass
class Tally:
    """What the kills did. `in_training`: kills that ended a session in its history; the others came while the base was
    loading or the finished run was being put down. `replayed`: updates that were made again, per session that began
    after one that was killed."""

    kills: int = 0
    in_a_save: int = 0
    in_training: int = 0
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
    while tally.kills < kills:
        out = work / f"run-{runs}"
        _train_with_kills(train, out, kills=kills, draw=draw, session_seconds=session_seconds, tally=tally)
        tally.replayed += replays(History(out / "history.jsonl").lines())
        runs += 1
        found = evidence(out)
        for part in PARTS:
            different[part] += found[part] != expected[part]
        say(f"{tally.kills} of {kills} kills, {runs} runs ended, different: {sum(different.values())}")
        shutil.rmtree(out)
    most = max(tally.replayed, default=0)
    return {
        "kills": tally.kills,
        "kills_in_a_save": tally.in_a_save,
        "kills_outside_training": tally.kills - tally.in_training,
        "runs": runs,
        "steps_replayed": sum(tally.replayed),
        "most_steps_replayed": most,
        "save_steps": save_steps,
        "equal": {part: different[part] == 0 for part in PARTS},
        "holds": not any(different.values()) and most <= save_steps,
        "reference_seconds": round(session_seconds, 3),
        "seconds": round(time.monotonic() - began, 3),
    }


def replays(lines: list[dict[str, Any]]) -> list[int]:
    """Updates made again by each session after the first, from a history's lines: where the session before it ended
    less where it began. A trainer that does not go on from its checkpoints begins at 0 and shows here."""
    ends = [line["step"] for line in lines if line["event"] == "end"]
    starts = [line["step"] for line in lines if line["event"] == "start"]
    return [max(0, ended - began) for ended, began in zip(ends, starts[1:], strict=False)]


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
    """One run to its end. Drawn moments that come after the end hit nothing and are not counted.

    Every kill in training must be in the history afterwards: without it nobody could tell what was replayed.
    """
    hit = set()  # sessions that a kill ended, by their number; one killed while the base was loading had not begun
    while True:
        begun = _sessions_begun(out)
        child = _fork(train, out)
        if tally.kills >= kills:
            _wait(child, out)
            break
        in_a_save = draw.random() >= 0.5
        longest = LONGEST_SAVE_SECONDS if in_a_save else session_seconds
        pause, skipped = draw.uniform(0, longest), draw.randrange(3) if in_a_save else 0
        if in_a_save and not _until_save(child, out, begun=begun, skipped=skipped):
            break
        moment = time.monotonic() + pause
        if not _sleep_while(child, out, lambda moment=moment: time.monotonic() < moment):
            break
        os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):  # it ended in the instant before
            _check(status, out)
            break
        tally.kills += 1
        tally.in_a_save += in_a_save and _is_saving(out)
        lines = History(out / "history.jsonl").lines()
        if lines and lines[-1]["event"] == "start":
            hit.add(_sessions_begun(out))
    tally.in_training += len(hit)
    told = sum(line.get("ended") == "killed" for line in History(out / "history.jsonl").lines())
    if told != len(hit):
        raise Failed(f"{out}: its history tells of {told} kills in training, not {len(hit)}")


def _sessions_begun(out: Path) -> int:
    return sum(line["event"] == "start" for line in History(out / "history.jsonl").lines())


def _until_save(child: int, out: Path, *, begun: int, skipped: int) -> bool:
    """Wait for the beginning of a save, after letting `skipped` pass; False if the session ended first.

    Until its session, the one after `begun` others, has begun, what a killed save left behind still looks like a save.
    """
    if not _sleep_while(child, out, lambda: _sessions_begun(out) == begun):
        return False
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
