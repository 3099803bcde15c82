"""First pass over a source: its format, the keys of its usable rows, and why others are unusable."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loragrid.data.formats.conversation import Conversation
from loragrid.data.formats.conversation_formats import to_conversation
from loragrid.data.formats.detection import ColumnCheck, checked_columns, with_format
from loragrid.data.formats.reasons import UNKNOWN_ROLE, UnusableRow
from loragrid.data.formats.row_format import RowFormat
from loragrid.data.reading.sources import Source, open_source
from loragrid.data.row_counts import ReasonCounts, RowCount
from loragrid.data.row_keys import RowKeys, row_keys
from loragrid.errors import UserError
from loragrid.study.sections import DataSet

SHOWN_ROLES = 12  # unknown names of speakers that are counted each by itself
MOST_FIELDS = 1_000  # names of fields that nothing reads, which may be as many as the rows


@dataclass
class SourceScan:
    """Findings of the first pass over a source; `keys` are those of usable rows, in its order.

    `last_row` is the number of the last row read: above `rows_read` in a file with empty lines.
    `notes`: usable rows by what was assumed of them; `unused`: usable rows by the names of their
    fields that nothing reads.
    """

    source: Source
    row_format: RowFormat
    rows_read: int = 0
    last_row: int = 0
    keys: list[RowKeys] = field(default_factory=list)
    dropped: ReasonCounts = field(default_factory=ReasonCounts)
    cut: RowCount = field(default_factory=RowCount)
    notes: ReasonCounts = field(default_factory=ReasonCounts)
    unused: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, conversation: Conversation) -> None:
        """Keep the keys of a usable row, and count what there is to say about it."""
        if conversation.cut_after_last_reply:
            self.cut.add(number)
        for note in conversation.notes:
            self.notes.add(note, number)
        for name in conversation.unused:
            if len(self.unused) < MOST_FIELDS or name in self.unused:
                self.unused[name] += 1
            else:
                self.unused["fields of many names"] += 1
        self.keys.append(row_keys(number, conversation))


class SourceScans:
    """Scans of a study's sources: each is read once, however many data sets use it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where generators write their rows."""
        self.folder = folder
        self._scans: dict[tuple, SourceScan] = {}

    def scan(self, entry: DataSet) -> SourceScan:
        """The scan of a data set's source. Raises `UserError` for a source without usable rows."""
        source, columns, roles = entry.source, entry.columns or {}, entry.roles or {}
        key = source, tuple(sorted(columns.items())), tuple(sorted(roles.items()))
        if key not in self._scans:
            generated = sum(known.generator is not None for known, *_ in self._scans)
            # The second generator of a mix must not overwrite the rows of the first.
            name = "source.jsonl" if generated == 0 else f"source_{generated + 1}.jsonl"
            opened = open_source(source, folder=self.folder, file_name=name)
            self._scans[key] = scan_source(opened, columns, roles)
        return self._scans[key]


def scan_source(source: Source, columns: Mapping[str, str], roles: Mapping[str, str]) -> SourceScan:
    """Detect the format, check every row, and keep the keys of usable rows.

    Only keys are kept, not conversations, so that memory stays small for large sources. Raises
    `UserError` if no row can be used, and for a column that no row has.
    """
    check = ColumnCheck(columns)
    rows = checked_columns(source.rows(), check)
    row_format, rows = with_format(rows, columns, roles, source_name=source.name)
    scan = SourceScan(source, row_format)
    for number, row in rows:
        scan.rows_read += 1
        scan.last_row = number
        try:
            conversation = to_conversation(row, row_format)
        except UnusableRow as reason:
            scan.dropped.add(str(reason), number)
            continue
        scan.add(number, conversation)
    check.finish(source_name=source.name)
    unknown_role = any(reason.startswith(UNKNOWN_ROLE) for reason in scan.dropped.by_reason)
    scan.dropped.merge_rare(UNKNOWN_ROLE, keep=SHOWN_ROLES, name=UNKNOWN_ROLE + ", {} other names")
    if not scan.keys:
        fix = "give rows without these faults"
        if unknown_role:
            fix = "map the names in the data set's roles, such as roles: {seeker: user}"
        raise UserError(
            f"data {source.name}: none of its {scan.rows_read} rows can be trained on ({scan.dropped}). Fix: {fix}."
        )
    return scan
