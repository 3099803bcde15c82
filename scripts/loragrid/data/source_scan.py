"""First pass over a source: its format, the keys of its usable rows, and why others are unusable."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from loragrid.data.formats.conversation_formats import UnusableRow, detect_format, to_conversation
from loragrid.data.reading.sources import Source, open_source
from loragrid.data.row_counts import ReasonCounts, RowCount
from loragrid.data.row_keys import RowKeys, row_keys
from loragrid.errors import UserError
from loragrid.study.sections import DataSource

FORMAT_ROWS = 100  # rows from which the format is detected


@dataclass
class SourceScan:
    """Findings of the first pass over a source; `keys` are those of usable rows, in its order.

    `last_row` is the number of the last row read: above `rows_read` in a file with empty lines.
    """

    source: Source
    row_format: str
    rows_read: int = 0
    last_row: int = 0
    keys: list[RowKeys] = field(default_factory=list)
    dropped: ReasonCounts = field(default_factory=ReasonCounts)
    cut: RowCount = field(default_factory=RowCount)


class SourceScans:
    """Scans of a study's sources: each is read once, however many data sets use it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where generators write their rows."""
        self.folder = folder
        self._scans: dict[DataSource, SourceScan] = {}

    def scan(self, source: DataSource) -> SourceScan:
        """The scan of `source`. Raises `UserError` for a source without usable rows."""
        if source not in self._scans:
            generated = sum(known.generator is not None for known in self._scans)
            # The second generator of a mix must not overwrite the rows of the first.
            name = "source.jsonl" if generated == 0 else f"source_{generated + 1}.jsonl"
            self._scans[source] = scan_source(open_source(source, folder=self.folder, file_name=name))
        return self._scans[source]


def scan_source(source: Source) -> SourceScan:
    """Detect the format, check every row, and keep the keys of usable rows.

    Only keys are kept, not conversations, so that memory stays small for large sources. Raises
    `UserError` if no row can be used.
    """
    rows = source.rows()
    first = list(itertools.islice(rows, FORMAT_ROWS))
    if not first:
        raise UserError(f"data {source.name}: the source holds no row. Fix: give conversations.")
    row_format = detect_format([row for _, row in first], source_name=source.name)
    scan = SourceScan(source, row_format)
    for number, row in itertools.chain(first, rows):
        scan.rows_read += 1
        scan.last_row = number
        try:
            conversation = to_conversation(row, row_format)
        except UnusableRow as reason:
            scan.dropped.add(str(reason), number)
            continue
        if conversation.cut_after_last_reply:
            scan.cut.add(number)
        scan.keys.append(row_keys(number, conversation))
    if not scan.keys:
        raise UserError(
            f"data {source.name}: none of its {scan.rows_read} rows can be trained on "
            f"({scan.dropped}). Fix: give rows without these faults."
        )
    return scan
