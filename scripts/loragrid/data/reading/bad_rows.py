"""Rows that cannot be read: the placeholder for each, and the error that names it."""

from dataclasses import dataclass
from typing import Any

from loragrid.errors import UserError

# The reasons are keys of the data card.
NOT_JSON = "line is not JSON"
DOUBLED_KEY = "a key is given twice"
NOT_ENCODED = "text is not in the file's encoding"
TOO_MANY_FIELDS = "more fields than the header"
TOO_FEW_FIELDS = "fewer fields than the header"
BAD_QUOTES = "quotes of a field are wrong"

EDIT = "delete the line or correct it, or set bad_rows: drop"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, in place of its value.

    `reason` is one of the above, `place` its file and line, `problem` a description of the fault.
    """

    reason: str
    place: str
    problem: str
    fix: str = EDIT

    def error(self) -> UserError:
        """The error that names the row."""
        return UserError(f"{self.place}: {self.problem}. Fix: {self.fix}.")


def checked(row: Any, bad_rows: str) -> Any:
    """The row itself. Raises `UserError` for a `BadRow` unless `bad_rows` is "drop"."""
    if isinstance(row, BadRow) and bad_rows != "drop":
        raise row.error()
    return row
