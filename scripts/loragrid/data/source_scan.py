"""First pass over a source: its format, the keys of its usable rows, and why others are unusable."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loragrid.data.formats.conversation import Conversation
from loragrid.data.formats.conversation_formats import to_conversation
from loragrid.data.formats.detection import ColumnCheck, with_format
from loragrid.data.formats.reasons import NOT_TEXT, OTHER_FORM, UNKNOWN_ROLE, UnusableRow
from loragrid.data.formats.row_format import RowFormat
from loragrid.data.parallel_rows import batches, map_batches
from loragrid.data.reading.bad_rows import BadRow
from loragrid.data.reading.sources import Source, open_source, read_row
from loragrid.data.row_counts import ReasonCounts, RowCount
from loragrid.data.row_keys import RowKeys, row_keys
from loragrid.errors import UserError
from loragrid.study.sections import DataSet

BATCH_ROWS = 512  # rows that a process checks at a time
SHOWN_ROLES = 12  # unknown names of speakers that are counted each by itself
MOST_FIELDS = 1_000  # names of fields that nothing reads, which may be as many as the rows


@dataclass(kw_only=True)
class ScannedRows:
    """Findings about rows of a source; `keys` are those of usable rows, in its order.

    `last_row` is the number of the last row read: above `rows_read` in a file with empty lines.
    `notes`: usable rows by what was assumed of them; `unused`: usable rows by the names of their
    fields that nothing reads.
    """

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
        self.unused.update(conversation.unused)
        self.keys.append(row_keys(number, conversation))

    def include(self, later: "ScannedRows") -> None:
        """Add the findings about the rows that follow."""
        self.rows_read += later.rows_read
        self.last_row = later.last_row
        self.keys += later.keys
        self.dropped.include(later.dropped, offset=0)
        self.cut.include(later.cut, offset=0)
        self.notes.include(later.notes, offset=0)
        for name, count in later.unused.items():
            known = len(self.unused) < MOST_FIELDS or name in self.unused
            self.unused[name if known else "fields of many names"] += count


@dataclass
class SourceScan(ScannedRows):
    """Findings of the first pass over a source."""

    source: Source
    row_format: RowFormat


class SourceScans:
    """Scans of a study's sources: each is read once, however many data sets use it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where generators write their rows."""
        self.folder = folder
        self._scans: dict[tuple, SourceScan] = {}

    def scan(self, entry: DataSet) -> SourceScan:
        """The scan of a data set's source. Raises `UserError` for a source without usable rows."""
        source, columns, roles = entry.source, entry.columns or {}, entry.roles or {}
        key = source, entry.bad_rows, tuple(sorted(columns.items())), tuple(sorted(roles.items()))
        if key not in self._scans:
            generated = sum(known.generator is not None for known, *_ in self._scans)
            # The second generator of a mix must not overwrite the rows of the first.
            name = "source.jsonl" if generated == 0 else f"source_{generated + 1}.jsonl"
            opened = open_source(source, folder=self.folder, file_name=name, bad_rows=entry.bad_rows)
            self._scans[key] = scan_source(opened, columns, roles)
        return self._scans[key]


def scan_source(source: Source, columns: Mapping[str, str], roles: Mapping[str, str]) -> SourceScan:
    """Detect the format, check every row, and keep the keys of usable rows.

    Only keys are kept, not conversations, so that memory stays small for large sources. Raises
    `UserError` if no row can be used, for a column that no row has, and for rows in several forms.
    """
    row_format = _detect(source, columns, roles)
    scan, check = SourceScan(source, row_format), ColumnCheck(columns)
    shared = _Shared(source.bad_rows, row_format, dict(columns))
    for found, columns_found in map_batches(_scan_batch, shared, batches(source.raw_rows(), BATCH_ROWS)):
        scan.include(found)
        check.include(columns_found)
    check.finish(source_name=source.name)
    if source.bad_rows != "drop":
        _refuse_other_forms(scan)
    unknown_role = any(reason.startswith(UNKNOWN_ROLE) for reason in scan.dropped.by_reason)
    scan.dropped.merge_rare(UNKNOWN_ROLE, keep=SHOWN_ROLES, name=UNKNOWN_ROLE + ", {} other names")
    if not scan.keys:
        fix = "give rows without these faults"
        if set(scan.dropped.by_reason) == {NOT_TEXT}:
            fix = 'write prompts and replies as text ("42", not 42), neither as lists nor as objects'
        if unknown_role:
            fix = "map the names in the data set's roles, such as roles: {seeker: user}"
        raise UserError(
            f"data {source.name}: none of its {scan.rows_read} rows can be trained on ({scan.dropped}). Fix: {fix}."
        )
    return scan


def _refuse_other_forms(scan: SourceScan) -> None:
    """Raise `UserError` for rows in another form than the first ones: half of a file would be left out."""
    others = {reason: rows for reason, rows in scan.dropped.by_reason.items() if reason.startswith(OTHER_FORM)}
    if not others:
        return
    count = sum(rows.count for rows in others.values())
    names = " and ".join([scan.row_format.name, *sorted(reason.removeprefix(OTHER_FORM) for reason in others)])
    first = min(rows.first_rows[0] for rows in others.values())
    raise UserError(
        f"data {scan.source.name}: the source mixes the formats {names}: {count} of its {scan.rows_read} rows are in "
        f"another one than its first rows (row {first} is the first). "
        "Fix: give each format a data set of its own, or set bad_rows: drop, which leaves these rows out."
    )


@dataclass(frozen=True)
class _Shared:
    """What the check of a row depends on beside the row."""

    bad_rows: str
    row_format: RowFormat
    columns: Mapping[str, str]


def _detect(source: Source, columns: Mapping[str, str], roles: Mapping[str, str]) -> RowFormat:
    rows = source.readable_rows()
    first = list(itertools.islice(rows, 1))
    if not first and next(source.raw_rows(), None) is not None:
        raise UserError(
            f"data {source.name}: none of its rows can be read. Fix: set bad_rows: stop, which names the first mistake."
        )
    row_format, _ = with_format(itertools.chain(first, rows), columns, roles, source_name=source.name)
    return row_format


def _scan_batch(shared: _Shared, batch: list[tuple[int, Any]]) -> tuple[ScannedRows, ColumnCheck]:
    found, check = ScannedRows(rows_read=len(batch), last_row=batch[-1][0]), ColumnCheck(shared.columns)
    for number, raw in batch:
        row = read_row(raw, shared.bad_rows)
        if isinstance(row, BadRow):
            found.dropped.add(row.reason, number)
            continue
        if check.missing:
            check.see(row)
        try:
            found.add(number, to_conversation(row, shared.row_format))
        except UnusableRow as reason:
            found.dropped.add(str(reason), number)
    return found, check
