"""The loss rows of a run in `losses.csv`, one per update and per held-out measurement."""

import csv
import io
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from loragrid.runtime.atomic_files import write_text


@dataclass(frozen=True, kw_only=True)
class LossRow:
    """A loss: mean negative log-likelihood per loss token, nats.

    Counts are totals since the run began. `learning_rate` and `grad_norm` (before clipping) belong
    to the update and are None in held-out rows. `seconds` is training time with evaluation and
    saving, without the work that was repeated after a kill.
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
    """The rows in memory and in the file, which shows the losses of a running job.

    After a kill the rows come from the checkpoint, which holds those up to its step. `restore`
    rewrites the file from them, so that replayed steps are neither doubled nor missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[LossRow] = []

    def add(self, row: LossRow) -> None:
        """Append a row."""
        self.rows.append(row)
        # One unbuffered write per row: a kill leaves either the whole line or none of it.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, _line(asdict(row).values()).encode())
        finally:
            os.close(descriptor)

    def restore(self, rows: list[dict[str, Any]]) -> None:
        """Replace all rows by those of a checkpoint, an empty list for a fresh run."""
        self.rows = [LossRow(**row) for row in rows]
        write_text(self.path, _line(COLUMNS) + "".join(_line(asdict(row).values()) for row in self.rows))

    def sync(self) -> None:
        """Rewrite the file with fsync, because appended lines may still be in the page cache."""
        self.restore(self.as_dicts())

    def as_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain values for a checkpoint."""
        return [asdict(row) for row in self.rows]

    def last(self, kind: str) -> LossRow | None:
        """The newest row of a kind, or None."""
        return next((row for row in reversed(self.rows) if row.kind == kind), None)

    def first(self, kind: str) -> LossRow | None:
        """The oldest row of a kind, or None."""
        return next((row for row in self.rows if row.kind == kind), None)


def last_position(path: Path) -> tuple[int, float]:
    """Step and seconds of the last whole row of a `losses.csv`; (0, 0.0) if there is none."""
    if not path.is_file():
        return 0, 0.0
    text = path.read_text(encoding="utf-8", errors="replace")
    # Up to the last newline: a kill may have left half a row after it. The first line is the
    # header.
    for line in reversed(text[: text.rfind("\n") + 1].splitlines()[1:]):
        values = dict(zip(COLUMNS, next(csv.reader([line])), strict=False))
        try:
            return int(values["step"]), float(values["seconds"])
        except (KeyError, ValueError):
            continue  # A damaged row: try the one above it.
    return 0, 0.0


def _line(values: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()
