"""The history of a run: a line when a session starts and one when it ends, never rewritten."""

import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.records.record import Session


class History:
    """The file `history.jsonl`. A start line without an end line belongs to a killed session."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, *, step: int, seconds_before: float, device: str, fingerprint_sha256: str) -> None:
        """Record the start of a session at `step`, with the training time in its checkpoint.

        A start at step 0 after a finished run, or with another fingerprint, restarts the run: the
        earlier lines stay in the file but no longer count.
        """
        self._append(
            {"event": "start", "step": step, "seconds_before": seconds_before, "fingerprint_sha256": fingerprint_sha256}
            | {"host": platform.node(), "pid": os.getpid(), "device": device}
        )

    def end(self, *, step: int, seconds: float, ended: str, **more: Any) -> None:
        """Record why the session ended, at which step and after how many seconds of training."""
        self._append({"event": "end", "step": step, "seconds": seconds, "ended": ended} | more)

    def close_killed(self, *, last_step: int, last_seconds: float) -> None:
        """End an open session as killed, at the last step and training time of its loss rows."""
        lines = self.lines()
        if lines and lines[-1]["event"] == "start":
            start = lines[-1]
            # A session killed before its first row has made no step and no training time.
            self.end(
                step=max(last_step, start["step"]),
                seconds=max(0.0, last_seconds - start["seconds_before"]),
                ended="killed",
            )

    def sessions(self) -> tuple[Session, ...]:
        """The ended sessions since the run began or was restarted, oldest first."""
        return tuple(
            Session(
                start_step=start["step"],
                end_step=end["step"],
                seconds=end["seconds"],
                host=start["host"],
                device=start["device"],
                ended=end["ended"],
            )
            for start, end in self._pairs()
        )

    def session_values(self, key: str) -> list[Any]:
        """The value of `key` in each of those sessions' end lines; None where a kill left none."""
        return [end.get(key) for _, end in self._pairs()]

    def _pairs(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Start and end lines of the sessions since the run began or was restarted."""
        pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
        # An end without a start cannot be charged to a session; a start without an end is still
        # open.
        start = None
        for line in self.lines():
            if line["event"] == "start":
                start = line
                if pairs and line["step"] == 0 and _restarts(*pairs[-1], line):
                    pairs = []
            elif start is not None:
                pairs.append((start, line))
                start = None
        return pairs

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines. A torn line is skipped; the next start closes its session."""
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                value = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(value, dict) and value.get("event") in ("start", "end"):
                found.append(value)
        return found

    def _append(self, value: dict[str, Any]) -> None:
        line = json.dumps(value | {"at": datetime.now(UTC).isoformat(timespec="seconds")}) + "\n"
        with open(self.path, "ab+") as file:
            # A line appended to a torn one would be lost with it.
            if file.tell() and not _ends_with_newline(file):
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            # The history must survive a power cut: it is the only account of a session that left no
            # checkpoint.
            os.fsync(file.fileno())


def minimum_logged(histories: Iterable[Path], key: str) -> float | None:
    """The smallest value of `key` over the ended sessions of these files; None if none has it."""
    values = []
    for path in histories:
        values += [value for value in History(path).session_values(key) if value is not None]
    return min(values, default=None)


def _restarts(last_start: dict[str, Any], last_end: dict[str, Any], start: dict[str, Any]) -> bool:
    other = last_start["fingerprint_sha256"] != start["fingerprint_sha256"]
    return other or last_end["ended"] in ("finished", "diverged")


def _ends_with_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
