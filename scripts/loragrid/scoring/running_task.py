"""A task while it runs: how far it is, and its finished answers, so that an interrupted job writes only the rest.

One JSON line per answer in a file beside the task's result, in the order in which answers end. A line is used only
under the key that it was written with, which stands for everything that an answer depends on.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loragrid.runtime.atomic_files import sha256_json
from loragrid.runtime.progress_lines import ProgressLines


@dataclass
class KeptAnswers:
    """A file of answers: lists of token ids by their requests. With `path` None nothing is kept."""

    path: Path | None
    key: str = ""
    _found: dict[str, list[int]] | None = field(default=None, repr=False)

    def get(self, request: Any) -> list[int] | None:
        """The kept answer to a request (plain JSON values), or None."""
        if self._found is None:
            self._found = self._read()
        return self._found.get(self._name(request))

    def add(self, request: Any, tokens: Sequence[int]) -> None:
        """Keep an answer."""
        if self.path is None:
            return
        line = json.dumps([self._name(request), list(tokens)])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # One write a line: a kill leaves whole lines, or one cut line that is not read.
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(file, f"\n{line}".encode())
        finally:
            os.close(file)

    def remove(self) -> None:
        """Forget all answers: the task's result is kept now."""
        self._found = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _name(self, request: Any) -> str:
        return sha256_json([self.key, request])

    def _read(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        if self.path is None or not self.path.is_file():
            return found
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                name, tokens = json.loads(line)
                found[name] = [int(token) for token in tokens]
            except (ValueError, TypeError):
                continue  # the end of a line that a kill cut off
        return found


@dataclass(frozen=True)
class RunningTask:
    """A task while it runs: what messages call it, and where its finished answers are kept."""

    label: str = "scoring"
    kept: KeptAnswers = field(default_factory=lambda: KeptAnswers(None))

    def progress(self, total: int, items: str, *, tokens: int = 0, at_most: bool = False) -> ProgressLines:
        """Lines about so many items, as of `ProgressLines`."""
        return ProgressLines(self.label, total=total, items=items, tokens=tokens, at_most=at_most)


# For a task outside of a job.
NOTHING_KEPT = RunningTask()
