"""Rewrites tables of running plans (Markdown pipes) as lines: "Week 2", "Monday: easy 5 km"."""

import re
from collections.abc import Iterable, Iterator

from loragrid.running_plans.vocabulary import NUMBER, WEEKDAY

_DAY = re.compile(rf"[\W_]*(?:(?:day|run|session|workout)s?\s*#?\s*{NUMBER}|d\d\b|{WEEKDAY})", re.IGNORECASE)
_WEEK = re.compile(rf"[\W_]*(?:weeks?|wk|w)\s*#?\s*{NUMBER}", re.IGNORECASE)
_BARE_NUMBERS = re.compile(rf"[\W_]*{NUMBER}(?:\s*(?:-|–|—|to|and|&|,)\s*{NUMBER})*[\W_]*", re.IGNORECASE)
_COLUMN_NAMES = {
    "week": "Week",
    "weeks": "Week",
    "wk": "Week",
    "day": "Day",
    "days": "Day",
    "weekday": "Day",
}
_RULE = re.compile(r"[\s|:+=–—-]+")


def flatten_tables(lines: Iterable[str]) -> Iterator[str]:
    """`lines` with every table replaced by one line for a week and one for each of its days; other lines unchanged."""
    table: list[list[str]] = []
    for line in lines:
        cells = _cells(line)
        if cells:
            table.append(cells)
        elif not (table and _RULE.fullmatch(line)):
            yield from _table_lines(table)
            table = []
            yield line
    yield from _table_lines(table)


def _cells(line: str) -> list[str] | None:
    """The cells of a table's row; None for any other line and for the rule below a header."""
    # One "|" inside a line is prose; a row without an outer "|" has at least two.
    least = 1 if line.lstrip().startswith("|") else 2
    if line.count("|") < least or _RULE.fullmatch(line):
        return None
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _table_lines(table: list[list[str]]) -> Iterator[str]:
    if not table:
        return
    header = table[0]
    # Two matching cells: a single one may be the label of the first column.
    if sum(bool(_WEEK.match(cell)) for cell in header[1:]) >= 2:
        yield from _weeks_across(header, table[1:])
    elif sum(bool(_DAY.match(cell)) for cell in header) >= 2 and not _WEEK.match(header[0]):
        yield from _days_across(header, table[1:])
    else:
        yield from _row_by_row(table)


def _weeks_across(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    for column, week in enumerate(header):
        if _WEEK.match(week):
            yield week
            yield from (f"{_labelled(row[0], 'Day')}: {_or_rest(row[column])}" for row in rows if column < len(row))


def _days_across(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    for row in rows:
        if not _DAY.match(header[0]):
            yield _labelled(row[0], "Week")
        yield from (f"{day}: {_or_rest(cell)}" for day, cell in zip(header, row) if _DAY.match(day))


def _row_by_row(table: list[list[str]]) -> Iterator[str]:
    """Rows that open with a week, a day, or both; the header names bare numbers."""
    names = [_column_name(cell) for cell in table[0]]
    has_header = any(names)
    week_first = has_header and names[0] == "Week"
    day_second = len(names) > 1 and names[1] == "Day"
    for row in table[1:] if has_header else table:
        cells = [_labelled(cell, name) for cell, name in zip(row, names)] + row[len(names) :]
        if not week_first:
            yield f"{cells[0]}: {' '.join(cells[1:]) or 'rest'}"
            continue
        # An empty first cell continues the week of the row above.
        if cells[0] and day_second:
            yield cells[0]
        elif cells[0]:
            yield f"{cells[0]}: {', '.join(filter(None, cells[1:]))}"
        if day_second and len(cells) > 1:
            yield f"{cells[1]}: {' '.join(cells[2:]) or 'rest'}"


def _column_name(cell: str) -> str:
    """ "Week", "Day", or "" for any other header."""
    word = re.sub(r"[\W_]+", " ", cell).strip().casefold()
    return _COLUMN_NAMES.get(word, "")


def _labelled(cell: str, name: str) -> str:
    return f"{name} {cell}" if name and _BARE_NUMBERS.fullmatch(cell) else cell


def _or_rest(cell: str) -> str:
    """The cell, or "rest" for an empty cell, a dash or a zero."""
    return cell if re.search(r"[^\W0_]", cell) else "rest"
