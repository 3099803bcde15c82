"""Kill-and-wipe test: a run is killed at random moments, its folder is deleted, and it goes on from its backup.

The result must equal that of a run that nobody killed. Half of the kills come at a random time, half at a random
moment after a copy has begun.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loragrid.backup.copies import FILES, CopyStore
from loragrid.backup.results import FINISHED
from loragrid.records.history import History
from loragrid.records.losses import last_position
from loragrid.training.forked_sessions import check_status, fork_session, sleep_while, wait_for_session
from loragrid.training.kill_and_resume import COMPARED, REFERENCE, Train, comparable_result

# A copy of a small model to a folder takes a few milliseconds: longer, so that every part of it can be hit.
LONGEST_COPY_SECONDS = 0.03


@dataclass(kw_only=True)
class WipeCounts:
    """What the kills did.

    `in_a_copy`: kills that left files of no whole copy; `not_resumed`: sessions that did not begin at the newest whole
    copy; `replayed`: updates that were made again, for each session; `different`: runs that differ, by compared part.
    """

    runs: int = 0
    kills: int = 0
    in_a_copy: int = 0
    not_resumed: int = 0
    replayed: list[int] = field(default_factory=list)
    different: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COMPARED, 0))


@dataclass(kw_only=True)
class WipeTest:
    """How to train with a backup and, for the reference, without one; the run's copies; how often and when to kill.

    `session_seconds`: the reference's, within which the random moments are.
    """

    train: Train
    reference: Train
    copies: CopyStore
    kills: int
    moments: random.Random
    session_seconds: float = 0.0
    counts: WipeCounts = field(default_factory=WipeCounts)


def certify_backup(test: WipeTest, *, work: Path, log: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The certificate of a backup: killed and wiped, the test's runs equal its reference.

    `holds` is false if anything differs, or if a session did not begin at the newest whole copy. Raises `Failed` if a
    session ends by itself with an error.
    """
    undisturbed, began = work / REFERENCE, time.monotonic()
    wait_for_session(fork_session(test.reference, undisturbed), undisturbed)
    test.session_seconds = time.monotonic() - began
    expected, counts, kills = comparable_result(undisturbed), test.counts, test.kills
    while counts.kills < kills:
        out = work / f"run-{counts.runs}"
        test.copies.keep_only([])
        _train_with_wipes(test, out)
        counts.runs += 1
        found = comparable_result(out)
        for part in COMPARED:
            counts.different[part] += found[part] != expected[part]
        log(f"{counts.kills} of {kills} kills, {counts.runs} runs ended, different: {sum(counts.different.values())}")
        shutil.rmtree(out)
    return {
        "kills": counts.kills,
        "kills_in_a_copy": counts.in_a_copy,
        "runs": counts.runs,
        "sessions_not_resumed": counts.not_resumed,
        "steps_replayed": sum(counts.replayed),
        "most_steps_replayed": max(counts.replayed, default=0),
        "equal": {part: count == 0 for part, count in counts.different.items()},
        "holds": not any(counts.different.values()) and not counts.not_resumed,
        "seconds": round(time.monotonic() - began, 3),
    }


def _train_with_wipes(test: WipeTest, out: Path) -> None:
    """Train one run to its end; after each kill its folder is deleted. Moments after its end hit nothing."""
    counts, reached = test.counts, 0
    while True:
        newest = _newest_whole(test.copies)
        child = fork_session(test.train, out)
        killed = counts.kills < test.kills and _kill(test, child, out)
        if not killed and counts.kills >= test.kills:
            wait_for_session(child, out)
        start = _start_of(child, out)
        if start is not None:
            counts.not_resumed += start != newest
            counts.replayed.append(max(0, reached - start))
        if not killed:
            return
        counts.kills += 1
        counts.in_a_copy += _is_half_copied(test.copies)
        reached = max(reached, last_position(out / "losses.csv")[0])
        shutil.rmtree(out, ignore_errors=True)


def _kill(test: WipeTest, child: int, out: Path) -> bool:
    """Kill a session at the next moment; False if it ended first."""
    in_a_copy = test.moments.random() >= 0.5
    pause = test.moments.uniform(0, LONGEST_COPY_SECONDS if in_a_copy else test.session_seconds)
    if in_a_copy:
        # Not always the first copy, whose session has nothing to go on from.
        later, names, files = test.moments.random() >= 0.5, test.copies.names(), _files(test.copies)
        if later:
            if not sleep_while(child, out, lambda: test.copies.names() == names):
                return False
            files |= _files(test.copies)
        if not sleep_while(child, out, lambda: _files(test.copies) <= files):
            return False
    moment = time.monotonic() + pause
    if not sleep_while(child, out, lambda: time.monotonic() < moment):
        return False
    os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        # It ended between the last look and the signal.
        check_status(status, out)
        return False
    return True


def _files(copies: CopyStore) -> set[str]:
    return set(copies.place.sizes(f"{copies.folder}/{FILES}"))


def _newest_whole(copies: CopyStore) -> int:
    """The step of the newest whole copy of a checkpoint, 0 without one."""
    names = [name for name in copies.names() if not name.startswith(FINISHED) and copies.read(name) is not None]
    return max((int(name.rpartition("-")[2]) for name in names), default=0)


def _is_half_copied(copies: CopyStore) -> bool:
    """Whether there are files that no whole copy lists."""
    whole = [copy for name in copies.names() if (copy := copies.read(name)) is not None]
    listed = {f"{copies.folder}/{FILES}/{file.sha256}" for copy in whole for file in copy.files.values()}
    return not _files(copies) <= listed


def _start_of(child: int, out: Path) -> int | None:
    """The step at which a session began to train, None if it did not come so far."""
    lines = History(out / "history.jsonl").lines()
    return next((line["step"] for line in lines if line["event"] == "start" and line["pid"] == child), None)
