"""The history of a run: one line when a session starts, one when it ends, appended and never rewritten."""

import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.records.record import Session


class History:
    """`history.jsonl`. A start line without an end line belongs to a session that was killed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, *, step: int, seconds_before: float, device: str, fingerprint_sha256: str) -> None:
        """Note that a session begins at `step`; `seconds_before` is the training time that its checkpoint holds.

        A start at step 0 after a finished run, or with another fingerprint, begins the run anew: what was before stays
        in the file and no longer counts.
        """
        self._append(
            {"event": "start", "step": step, "seconds_before": seconds_before, "fingerprint_sha256": fingerprint_sha256}
            | {"host": platform.node(), "pid": os.getpid(), "device": device}
        )

    def end(self, *, step: int, seconds: float, ended: str, **more: Any) -> None:
        """Note why the session ended, at which step and after how many seconds of training."""
        self._append({"event": "end", "step": step, "seconds": seconds, "ended": ended} | more)

    def close_killed(self, *, last_step: int, last_seconds: float) -> None:
        """End an open session as killed, with the last step and training time that its loss rows tell."""
        lines = self.lines()
        if lines and lines[-1]["event"] == "start":
            start = lines[-1]
            self.end(
                step=max(last_step, start["step"]),
                seconds=max(0.0, last_seconds - start["seconds_before"]),
                ended="killed",
            )

    def sessions(self) -> tuple[Session, ...]:
        """The sessions that have ended since the run began (anew), oldest first."""
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

    def told(self, key: str) -> list[Any]:
        """What those sessions' end lines say under `key`; None where one does not, as after a kill."""
        return [end.get(key) for _, end in self._pairs()]

    def _pairs(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Start and end lines of the sessions since the run began (anew)."""
        pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
        start = None
        for line in self.lines():
            if line["event"] == "start":
                start = line
                if pairs and line["step"] == 0 and _begins_anew(*pairs[-1], line):
                    pairs = []
            elif start is not None:
                pairs.append((start, line))
                start = None
        return pairs

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines; one that a power cut tore is passed over (the next start closes its session)."""
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
            if file.tell() and not self._ends_whole(file):
                line = "\n" + line  # a torn line must not swallow this one
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def _ends_whole(file: Any) -> bool:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def least_told(histories: Iterable[Path], key: str) -> float | None:
    """The least value that any session of these files tells under `key`; None where none does."""
    told = [value for path in histories for value in History(path).told(key) if value is not None]
    return min(told, default=None)


def _begins_anew(last_start: dict[str, Any], last_end: dict[str, Any], start: dict[str, Any]) -> bool:
    other = last_start["fingerprint_sha256"] != start["fingerprint_sha256"]
    return other or last_end["ended"] in ("finished", "diverged")
