"""Tables of running plans (Markdown pipes) as lines that say the same: "Week 2", "Monday: easy 5 km"."""

import re
from collections.abc import Iterable, Iterator

from loragrid.running_plans.vocabulary import NUMBER, WEEKDAY

_DAY = re.compile(rf"[\W_]*(?:(?:day|run|session|workout)s?\s*#?\s*{NUMBER}|d\d\b|{WEEKDAY})", re.IGNORECASE)
_WEEK = re.compile(rf"[\W_]*(?:weeks?|wk|w)\s*#?\s*{NUMBER}", re.IGNORECASE)
_BARE_NUMBERS = re.compile(rf"[\W_]*{NUMBER}(?:\s*(?:-|–|—|to|and|&|,)\s*{NUMBER})*[\W_]*", re.IGNORECASE)
_RULE = re.compile(r"[\s|:+=–—-]+")


def flatten_tables(lines: Iterable[str]) -> Iterator[str]:
    """`lines` with every table replaced: one line for a week, one for each of its days; other lines as they are."""
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
    if line.count("|") < (1 if line.lstrip().startswith("|") else 2) or _RULE.fullmatch(line):
        return None
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _table_lines(table: list[list[str]]) -> Iterator[str]:
    if not table:
        return
    header = table[0]
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
    """Rows that open with a week, a day, or both; bare numbers are named by the header."""
    names = [_name(cell) for cell in table[0]]
    has_header = any(names)
    for row in table[1:] if has_header else table:
        named = [_labelled(cell, name) for cell, name in zip(row, names)] + row[len(names) :]
        if has_header and names[0] == "Week" and named[0]:
            yield (
                named[0]
                if len(names) > 1 and names[1] == "Day"
                else f"{named[0]}: {', '.join(filter(None, named[1:]))}"
            )
        if not has_header or names[0] != "Week":
            yield f"{named[0]}: {' '.join(named[1:]) or 'rest'}"
        elif len(names) > 1 and names[1] == "Day" and len(named) > 1:
            yield f"{named[1]}: {' '.join(named[2:]) or 'rest'}"


def _name(cell: str) -> str:
    word = re.sub(r"[\W_]+", " ", cell).strip().casefold()
    return {"week": "Week", "weeks": "Week", "wk": "Week", "day": "Day", "days": "Day", "weekday": "Day"}.get(word, "")


def _labelled(cell: str, name: str) -> str:
    return f"{name} {cell}" if name and _BARE_NUMBERS.fullmatch(cell) else cell


def _or_rest(cell: str) -> str:
    """An empty cell, a dash or a zero is a day off."""
    return cell if re.search(r"[^\W0_]", cell) else "rest"
