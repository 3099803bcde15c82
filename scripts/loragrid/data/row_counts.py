"""Counts of rows by reason, with the numbers of the first rows, as the data card holds them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

FIRST_ROWS = 5


@dataclass
class RowCount:
    """A number of rows, and the numbers of the first five."""

    count: int = 0
    first_rows: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        """Count one more row."""
        self.count += 1
        if len(self.first_rows) < FIRST_ROWS:
            self.first_rows.append(row)

    def add_all(self, rows: Iterable[int]) -> None:
        """Count several rows."""
        for row in rows:
            self.add(row)

    def include(self, other: "RowCount", *, offset: int) -> None:
        """Add the rows of another count, their numbers raised by `offset`."""
        self.count += other.count
        missing = FIRST_ROWS - len(self.first_rows)
        self.first_rows += [row + offset for row in other.first_rows[:missing]]

    def as_dict(self) -> dict[str, Any]:
        """The count as the card holds it."""
        return {"count": self.count, "first_rows": self.first_rows}


class ReasonCounts:
    """Rows that were left out, counted by reason."""

    def __init__(self) -> None:
        self.by_reason: dict[str, RowCount] = {}

    def add(self, reason: str, row: int) -> None:
        """Count a row that was left out for `reason`."""
        self.by_reason.setdefault(reason, RowCount()).add(row)

    def include(self, other: "ReasonCounts", *, offset: int) -> None:
        """Add the rows of other counts, their numbers raised by `offset`."""
        for reason, rows in other.by_reason.items():
            self.by_reason.setdefault(reason, RowCount()).include(rows, offset=offset)

    def merge_rare(self, prefix: str, *, keep: int, name: str) -> None:
        """Count the reasons that begin with `prefix` under one, `name`, except the `keep` most frequent."""
        found = [item for item in self.by_reason.items() if item[0].startswith(prefix)]
        found.sort(key=lambda item: (-item[1].count, item[0]))
        rare = found[keep:]
        if not rare:
            return
        count = sum(rows.count for _, rows in rare)
        first_rows = sorted(row for _, rows in rare for row in rows.first_rows)[:FIRST_ROWS]
        for reason, _ in rare:
            del self.by_reason[reason]
        self.by_reason[name.format(len(rare))] = RowCount(count, first_rows)

    @property
    def total(self) -> int:
        """Rows left out for any reason."""
        return sum(rows.count for rows in self.by_reason.values())

    def as_dict(self) -> dict[str, Any]:
        """The counts as the card holds them, reasons in alphabetical order."""
        return {reason: self.by_reason[reason].as_dict() for reason in sorted(self.by_reason)}

    def __str__(self) -> str:
        """`2 empty reply (rows 3, 8); 1 not text (row 5)`, the most frequent reason first."""
        parts = []
        by_count = sorted(self.by_reason.items(), key=lambda item: (-item[1].count, item[0]))
        for reason, rows in by_count:
            noun = "row" if rows.count == 1 else "rows"
            numbers = ", ".join(map(str, rows.first_rows))
            more = " …" if rows.count > FIRST_ROWS else ""
            parts.append(f"{rows.count} {reason} ({noun} {numbers}{more})")
        return "; ".join(parts) or "no row was read"
