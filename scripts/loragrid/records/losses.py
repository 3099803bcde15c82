"""The loss rows of a run: one for every update and every measurement of the held-out loss, in `losses.csv`."""

import csv
import io
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from loragrid.runtime.atomic_files import write_text


@dataclass(frozen=True, kw_only=True)
class LossRow:
    """Mean negative log-likelihood per loss token, in nats; counts are totals since the run began, not of the step.

    `learning_rate` and `grad_norm` (before clipping) are those of the update and None in held-out rows. `seconds` is
    training time, evaluation and saving included, without what a kill made be done twice.
    """

    step: int
    kind: Literal["train", "heldout"]
    loss: float
    learning_rate: float | None
    grad_norm: float | None
    samples: int
    tokens: int
    loss_tokens: int
    seconds: float


COLUMNS = tuple(field.name for field in fields(LossRow))


class LossTable:
    """The rows in memory and, as they come, in the file: whoever looks sees a running job's losses.

    The truth after a kill is the checkpoint, which holds the rows up to its step: `restore` rewrites the file from it,
    so that replayed steps are neither doubled nor missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[LossRow] = []

    def add(self, row: LossRow) -> None:
        """Append a row, in one write, so that a kill leaves no half line behind a whole one."""
        self.rows.append(row)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, _line(asdict(row).values()).encode())
        finally:
            os.close(descriptor)

    def restore(self, rows: list[dict[str, Any]]) -> None:
        """Start again from a checkpoint's rows (none for a fresh run)."""
        self.rows = [LossRow(**row) for row in rows]
        write_text(self.path, _line(COLUMNS) + "".join(_line(asdict(row).values()) for row in self.rows))

    def seal(self) -> None:
        """Write the whole file once more, durably: appended lines may still be in the page cache."""
        self.restore(self.as_dicts())

    def as_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain values for a checkpoint."""
        return [asdict(row) for row in self.rows]

    def last(self, kind: str) -> LossRow | None:
        """The newest row of a kind."""
        return next((row for row in reversed(self.rows) if row.kind == kind), None)

    def first(self, kind: str) -> LossRow | None:
        """The oldest row of a kind."""
        return next((row for row in self.rows if row.kind == kind), None)


def last_position(path: Path) -> tuple[int, float]:
    """Step and seconds of the last whole line of a `losses.csv` that a killed session left; (0, 0.0) without one."""
    if not path.is_file():
        return 0, 0.0
    text = path.read_text(encoding="utf-8", errors="replace")
    for line in reversed(text[: text.rfind("\n") + 1].splitlines()[1:]):
        values = dict(zip(COLUMNS, next(csv.reader([line])), strict=False))
        try:
            return int(values["step"]), float(values["seconds"])
        except (KeyError, ValueError):
            continue  # not a row of ours: look further up
    return 0, 0.0


def _line(values: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()
