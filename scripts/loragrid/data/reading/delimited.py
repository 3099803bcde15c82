"""CSV and TSV files with a header: each record as an object of texts."""

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from loragrid.data.reading.bad_rows import BAD_QUOTES, TOO_FEW_FIELDS, TOO_MANY_FIELDS, BadRow
from loragrid.data.reading.text_files import open_text, undecoded
from loragrid.errors import UserError, first_line

# The module's own limit, 131,072, is shorter than some conversations. An open quote stops being read here.
FIELD_CHARACTERS = 2**24
# In order of preference. Spreadsheets write a semicolon where the comma is the decimal mark.
DELIMITERS = (",", ";", "\t")


def csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The records of a CSV file, numbered by the line where they begin; the header tells the delimiter."""
    with open_text(path, newline="") as file:
        header = file.readline()
    counts = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in DELIMITERS}
    return _rows(path, max(DELIMITERS, key=lambda mark: counts[mark]))


def tsv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The records of a TSV file, numbered by the line where they begin."""
    return _rows(path, "\t")


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, Any]]:
    # The limit is the whole process's; nothing else in it reads CSV.
    csv.field_size_limit(FIELD_CHARACTERS)
    with open_text(path, newline="") as file:
        records = _records(_Lines(file), delimiter)
        names = _column_names(path, records)
        for line, fields in records:
            row = _row(names, fields, f"data file {path}, line {line}")
            if row is not None:
                yield line, row


def _column_names(path: Path, records: Iterator[tuple[int, Any]]) -> list[str]:
    line, header = next(((line, fields) for line, fields in records if fields), (1, []))
    if isinstance(header, csv.Error):
        raise UserError(
            f"data file {path}, line {line}: the header is not readable ({header}). Fix: correct its quotes."
        )
    mistake = undecoded("".join(header), f"data file {path}, line {line}")
    if mistake is not None:
        raise mistake.error()
    # Tables saved with their index have no name above it.
    names = [name.strip() or f"column {place}" for place, name in enumerate(header, start=1)]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UserError(
            f"data file {path}, line {line}: two columns have the same name ({doubled[0]}). Fix: rename one of them."
        )
    return names


def _row(names: list[str], fields: list[str] | csv.Error, place: str) -> dict[str, str] | BadRow | None:
    """A record as an object, None for an empty line."""
    if isinstance(fields, csv.Error):
        fix = "put the field in quotes and double the quotes in it, or set bad_rows: drop"
        return BadRow(BAD_QUOTES, place, f"the quotes of a field are wrong ({first_line(fields)})", fix=fix)
    if not fields or (len(names) > 1 and len(fields) == 1 and not fields[0].strip()):
        return None
    mistake = undecoded("".join(fields), place)
    if mistake is not None:
        return mistake
    if len(fields) != len(names):
        reason = TOO_MANY_FIELDS if len(fields) > len(names) else TOO_FEW_FIELDS
        return BadRow(reason, place, f"{reason} ({len(fields)} instead of {len(names)})")
    return dict(zip(names, fields, strict=True))


class _Lines:
    """Lines of a file that can be read again from the second line of the current record."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.number = file, 0
        self.again: deque[str] = deque()
        self.record: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self.file)
        self.number += 1
        self.record.append(line)
        return line

    def begin(self) -> int:
        """Begin a record at the next line and return its number."""
        self.record = []
        return self.number + 1

    def step_back(self) -> None:
        """Go back to the line after the first of the record."""
        self.again.extendleft(reversed(self.record[1:]))
        self.number -= len(self.record) - 1


def _records(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Line number and fields of each record, or what is wrong with it."""
    # Strict, because a quote that is never closed would swallow the records after it.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = lines.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # One bad quote makes one bad line: the lines that it swallowed are read again.
            lines.step_back()
            yield line, error
            continue
        yield line, fields
