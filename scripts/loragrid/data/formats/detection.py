"""The format of a source, detected from its first rows.

Of a row that fits several formats the first of these is read, and its other columns are counted as not
used: 1. the columns that the study names, 2. `chosen` beside `rejected`, 3. a list of turns, 4. a prompt
with a reply, 5. `text`.
"""

import difflib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from loragrid.data.formats.roles import known_roles, normal_name
from loragrid.data.formats.row_format import (
    GIVEN,
    MESSAGES,
    PROMPTS,
    REPLIES,
    Fields,
    RowFormat,
)
from loragrid.data.formats.texts import as_list
from loragrid.data.formats.turns import ROLE_KEYS, turn_shape
from loragrid.errors import UserError

OPTIONAL = ("input", "context")  # beside an instruction; a prompt where there is none
FORMAT_ROWS = 100  # rows from which the format is detected
SHOWN_KEYS = 12
LONGEST_NAME = 60  # characters of a column's name; a longer one is the first row of a table without a header
TURN_FORMATS = {("spoken", "from", "value"): "sharegpt", ("spoken", "role", "content"): "messages"}


def detect_format(
    rows: list[Any],
    *,
    source_name: str,
    columns: Mapping[str, str] | None = None,
    roles: Mapping[str, str] | None = None,
) -> RowFormat:
    """The format of a source, detected from its first `rows`.

    `columns` and `roles` are those of the study: use → column, and speaker → role. Raises `UserError`
    if the rows are in no known format or in more than one.
    """
    columns = columns or {}
    uses = {column: use for use, column in columns.items()}
    given = RowFormat("", "", columns=uses, roles=known_roles(roles or {}))
    objects = [row for row in rows if isinstance(row, dict)]
    found: dict[str, RowFormat] = {}
    for row in objects:
        fitting = row_format(row, given)
        if fitting is not None:
            found.setdefault(fitting.name, fitting)
    _join_optional_instructions(found)
    if len(found) == 1:
        return next(iter(found.values()))
    if not objects:
        raise UserError(
            f"data {source_name}: none of its first rows is an object ({type(rows[0]).__name__}). Fix: give "
            "conversations, one object a row; a file that is one array is named .json."
        )
    keys = sorted({str(key) for row in objects for key in row})[:SHOWN_KEYS]
    seen = f"keys seen: {', '.join(keys) or 'none'}"
    if found:
        raise UserError(
            f"data {source_name}: the source mixes the formats {' and '.join(sorted(found))} ({seen}). "
            "Fix: give each format its own file."
        )
    check = ColumnCheck(columns)
    for row in objects:
        check.see(row)
    check.finish(source_name=source_name)
    raise UserError(f"data {source_name}: the format is unknown ({seen}). Fix: {_fix_of_unknown(objects, given)}.")


def _fix_of_unknown(objects: list[Fields], given: RowFormat) -> str:
    """What to do about rows of no known format."""
    fields, _ = given.fields(objects[0])
    within = [key for key, value in objects[0].items() if isinstance(value, list) and value and len(objects) == 1]
    within = [key for key in within if isinstance(objects[0][key][0], dict)]
    if within:
        return f"give the list under {within[0]} as the file"
    text = next((name for name in MESSAGES if isinstance(fields.get(name), str)), None)
    if text is not None:
        return f"write the turns in {text.removeprefix(GIVEN)} as JSON"
    if any(len(str(column)) > LONGEST_NAME for column in objects[0]):
        return "write the columns' names above the first row, such as question,answer"
    if _is_turn(fields, given):
        return "give all turns of a conversation in one row, as a list in messages"
    return "name the columns, such as columns: {prompt: …, reply: …} of the data set"


def with_format(
    rows: Iterator[tuple[int, Any]], columns: Mapping[str, str], roles: Mapping[str, str], *, source_name: str
) -> tuple[RowFormat, Iterator[tuple[int, Any]]]:
    """The format of numbered rows, and all of these rows again. Raises `UserError` as `detect_format` does."""
    first = list(itertools.islice(rows, FORMAT_ROWS))
    if not first:
        raise UserError(f"data {source_name}: the source holds no row. Fix: give conversations.")
    found = detect_format([row for _, row in first], source_name=source_name, columns=columns, roles=roles)
    return found, itertools.chain(first, rows)


def row_format(row: Mapping[str, Any], given: RowFormat) -> RowFormat | None:
    """The format of one row; `given` holds the study's columns and roles."""
    try:
        fields, _ = given.fields(row)
    except RecursionError:
        return None
    named = {use for column, use in given.columns.items() if column in row}
    if "messages" in named:
        return _turns(fields, given)
    if named & {"prompt", "reply"}:
        return _exchange(row, fields, given)
    if "text" in named:
        return _with(given, "text", "text")
    present = {given.field_name(column) for column in row}
    if "rejected" in present and isinstance(fields.get("chosen"), str | list | dict):
        return _with(given, "preference", "preference")
    found = _turns(fields, given) or _exchange(row, fields, given)
    if found is None and isinstance(fields.get("text"), str) and not _is_turn(fields, given):
        return _with(given, "text", "text")
    return found


def _is_turn(fields: Fields, given: RowFormat) -> bool:
    """Whether a row of text is a single turn of a conversation: prompts would be trained as replies."""
    speakers = [fields.get(key) for key in ROLE_KEYS]
    return any(isinstance(name, str) and normal_name(name) in given.roles for name in speakers)


def _turns(fields: Fields, given: RowFormat) -> RowFormat | None:
    for name in MESSAGES:
        shape = turn_shape(as_list(fields.get(name)), given.roles)
        if shape is not None:
            # The keys of a turn decide, not the name of the list: all occur under all names.
            usual = f"{'/'.join(shape[1:])} turns" if shape[0] == "spoken" else shape[0]
            return _with(given, TURN_FORMATS.get(shape, usual), "turns", shape)
    return None


def _exchange(row: Mapping[str, Any], fields: Fields, given: RowFormat) -> RowFormat | None:
    """The format of a row with a reply and a prompt, of which the prompt may be null in a row."""
    reply = next((name for name in REPLIES if name in fields), None)
    # A speaker's name is a prompt beside a speaker's name only: elsewhere it may say who wrote the row.
    prompts = [name for name in PROMPTS if name not in ("user", "human") or reply == "assistant"]
    prompt = next((name for name in prompts if name in fields and name not in OPTIONAL), None)
    if prompt is None and not fields.keys().isdisjoint(OPTIONAL):
        # An instruction that is null beside an input: Alpaca, not a source of inputs and outputs.
        present = {given.field_name(column) for column in row}
        prompt = next(name for name in prompts if name in present)
    if prompt is None or reply is None:
        return None
    columns = {given.field_name(column): column for column in row}
    name = f"{columns[prompt]}/{columns[reply]}".lower()
    return _with(given, "alpaca" if name == "instruction/output" else name, "exchange", (prompt, reply))


def _with(given: RowFormat, name: str, kind: str, keys: tuple[str, ...] = ()) -> RowFormat:
    return RowFormat(name, kind, keys, given.columns, given.roles)


def _join_optional_instructions(found: dict[str, RowFormat]) -> None:
    """Remove the format of rows without an instruction if others have one: an input alone may be a prompt."""
    with_instruction = {each.keys[1] for each in found.values() if each.keys[:1] == ("instruction",)}
    for name, each in list(found.items()):
        if each.keys[:1] == ("input",) and each.keys[1] in with_instruction:
            del found[name]


class ColumnCheck:
    """Checks that every column that a study names occurs in its source."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        """`columns`: use → column."""
        self.missing = {column: use for use, column in columns.items()}
        self.seen: set[str] = set()

    def see(self, row: Any) -> None:
        """Note the columns of a row."""
        if isinstance(row, dict):
            self.seen.update(map(str, row))
            for column in list(self.missing):
                if column in row:
                    del self.missing[column]

    def include(self, other: "ColumnCheck") -> None:
        """Add what another check has seen of the same source."""
        self.seen |= other.seen
        self.missing = {column: use for column, use in self.missing.items() if column in other.missing}

    def finish(self, *, source_name: str) -> None:
        """Raise `UserError` about a column that no row has."""
        if not self.missing:
            return
        column, use = next(iter(self.missing.items()))
        names = sorted(self.seen)
        close = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
        shown = ", ".join(names[:SHOWN_KEYS]) or "none"
        fix = f"write {close[0]}" if close else "name one of its columns"
        raise UserError(
            f"data {source_name}, columns.{use}: no row has this column ({column}); columns seen: {shown}. Fix: {fix}."
        )
