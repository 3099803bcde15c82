"""Kill-and-resume test: kill a run at random moments, resume it to its end, compare the result.

The result must equal that of a run that nobody killed. Half of the kills come at a random time,
half at a random moment after a save has begun.
"""

import csv
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loragrid.errors import Failed
from loragrid.models.adapter_files import ALONG, trained_folder
from loragrid.records.history import History
from loragrid.runtime.atomic_files import sha256_file
from loragrid.training.checkpoints import UNFINISHED
from loragrid.training.forked_sessions import (
    check_status,
    fork_session,
    sleep_while,
    wait_for_session,
)

REFERENCE = "reference"  # name of the folder of the run that nobody kills
# What is compared; each is a key of `comparable_result`.
COMPARED = ("weights", "loss_rows", "learning_rates", "sample_order", "random_states")
# A save of a small model takes a few milliseconds: longer, so that every part of it can be hit.
LONGEST_SAVE_SECONDS = 0.05

Train = Callable[[Path], None]


@dataclass
class KillCounts:
    """What the kills did.

    `in_training` counts kills that ended a session in the run's history; the others came while the
    base was loading or while the finished run was being saved. `replayed`: updates that were made
    again, for each session after a kill. `different`: runs that differ, for each compared part.
    """

    runs: int = 0
    kills: int = 0
    in_a_save: int = 0
    in_training: int = 0
    replayed: list[int] = field(default_factory=list)
    different: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COMPARED, 0))


@dataclass(frozen=True, kw_only=True)
class KillTest:
    """How to train, how often and when to kill, and what the kills did so far."""

    train: Train
    kills: int
    moments: random.Random
    session_seconds: float
    counts: KillCounts


def certify_resume(
    train: Train,
    *,
    work: Path,
    kills: int,
    seed: int,
    save_steps: int,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The certificate of `train(folder)`: killed `kills` times, its runs equal an undisturbed one.

    `holds` is false if anything differs, or if a kill cost more than `save_steps` updates. Raises
    `Failed` if a session ends by itself with an error.
    """
    reference = work / REFERENCE
    began = time.monotonic()
    wait_for_session(fork_session(train, reference), reference)
    test = KillTest(
        train=train,
        kills=kills,
        moments=random.Random(seed),
        session_seconds=time.monotonic() - began,
        counts=KillCounts(),
    )
    expected, counts = comparable_result(reference), test.counts
    while counts.kills < kills:
        out = work / f"run-{counts.runs}"
        _train_with_kills(test, out)
        counts.replayed += replayed_updates(History(out / "history.jsonl").lines())
        counts.runs += 1
        found = comparable_result(out)
        for part in COMPARED:
            counts.different[part] += found[part] != expected[part]
        total = sum(counts.different.values())
        log(f"{counts.kills} of {kills} kills, {counts.runs} runs ended, different: {total}")
        shutil.rmtree(out)
    seconds = {
        "reference_seconds": round(test.session_seconds, 3),
        "seconds": round(time.monotonic() - began, 3),
    }
    return _certificate(counts, save_steps=save_steps) | seconds


def _certificate(counts: KillCounts, *, save_steps: int) -> dict[str, Any]:
    most = max(counts.replayed, default=0)
    return {
        "kills": counts.kills,
        "kills_in_a_save": counts.in_a_save,
        "kills_outside_training": counts.kills - counts.in_training,
        "runs": counts.runs,
        "steps_replayed": sum(counts.replayed),
        "most_steps_replayed": most,
        "save_steps": save_steps,
        "equal": {part: count == 0 for part, count in counts.different.items()},
        # Equal bytes are not enough: a trainer that starts from step 0 again has them too.
        "holds": not any(counts.different.values()) and most <= save_steps,
    }


def replayed_updates(lines: list[dict[str, Any]]) -> list[int]:
    """Updates that each session after the first made again, from a history's lines.

    A trainer that ignores its checkpoints starts at 0 and shows here, though its result is equal.
    """
    ends = [line["step"] for line in lines if line["event"] == "end"]
    starts = [line["step"] for line in lines if line["event"] == "start"]
    return [max(0, ended - began) for ended, began in zip(ends, starts[1:], strict=False)]


def comparable_result(out: Path) -> dict[str, Any]:
    """What must be equal between two finished runs; seconds never are, and are left out."""
    rows = []
    with open(out / "losses.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            del row["seconds"]
            rows.append(row)
    last = History(out / "history.jsonl").lines()[-1]
    return {
        "weights": {str(file.relative_to(out)): sha256_file(file) for file in sorted(_weight_files(out))},
        "loss_rows": rows,
        "learning_rates": [row["learning_rate"] for row in rows],
        "sample_order": last["order_sha256"],
        "random_states": last["random_sha256"],
    }


def _weight_files(out: Path) -> Iterator[Path]:
    """Files of the final weights, and of those that were kept along the run."""
    for folder in (trained_folder(out), out / ALONG):
        yield from (file for file in folder.rglob("*") if file.is_file())


def _train_with_kills(test: KillTest, out: Path) -> None:
    """Train one run to its end. Moments after the end of a session hit nothing and do not count."""
    counts = test.counts
    # The numbers of the sessions that a kill ended. A session killed while its base was loading has
    # not begun, and the next one has the same number.
    hit = set()
    while True:
        begun = _sessions_begun(out)
        child = fork_session(test.train, out)
        if counts.kills >= test.kills:
            wait_for_session(child, out)
            break
        in_a_save = test.moments.random() >= 0.5
        if not _wait_for_moment(test, child, out, begun=begun, in_a_save=in_a_save):
            break
        os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            # It ended between the last look and the signal.
            check_status(status, out)
            break
        counts.kills += 1
        counts.in_a_save += in_a_save and _is_saving(out)
        lines = History(out / "history.jsonl").lines()
        if lines and lines[-1]["event"] == "start":
            hit.add(_sessions_begun(out))
    counts.in_training += len(hit)
    # Replayed updates are counted from the history, so it must show every kill.
    lines = History(out / "history.jsonl").lines()
    logged = sum(line.get("ended") == "killed" for line in lines)
    if logged != len(hit):
        raise Failed(f"{out}: its history shows {logged} kills in training, not {len(hit)}")


def _wait_for_moment(
    test: KillTest,
    child: int,
    out: Path,
    *,
    begun: int,
    in_a_save: bool,
) -> bool:
    """Wait for the next moment to kill; False if the session ended first."""
    longest = LONGEST_SAVE_SECONDS if in_a_save else test.session_seconds
    pause = test.moments.uniform(0, longest)
    if in_a_save:
        # Not always the first save, whose session has nothing to resume from.
        skipped = test.moments.randrange(3)
        if not _wait_for_save(child, out, begun=begun, skipped=skipped):
            return False
    moment = time.monotonic() + pause
    return sleep_while(child, out, lambda: time.monotonic() < moment)


def _sessions_begun(out: Path) -> int:
    return sum(line["event"] == "start" for line in History(out / "history.jsonl").lines())


def _wait_for_save(child: int, out: Path, *, begun: int, skipped: int) -> bool:
    """Wait until a save begins, after `skipped` others; False if the session ended first."""
    # Until the session begins, the remains of a killed save still look like a save.
    if not sleep_while(child, out, lambda: _sessions_begun(out) == begun):
        return False
    for number in range(skipped + 1):
        if not sleep_while(child, out, lambda: not _is_saving(out)):
            return False
        if number < skipped and not sleep_while(child, out, lambda: _is_saving(out)):
            return False
    return True


def _is_saving(out: Path) -> bool:
    try:
        return any(name.startswith(UNFINISHED) for name in os.listdir(out / "checkpoints"))
    except FileNotFoundError:
        # No save yet, or the run has just finished.
        return False
