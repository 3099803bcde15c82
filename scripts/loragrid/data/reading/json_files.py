"""Files of JSON: one value per line, or one array."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.data.reading.bad_rows import DOUBLED_KEY, NOT_JSON, BadRow
from loragrid.data.reading.json_stream import DoubledKey, NotJson, json_values, unique_keys
from loragrid.data.reading.text_files import open_text, undecoded
from loragrid.errors import UserError, first_line

FIRST_LINE_CHARACTERS = 2**20  # a longer first line is taken for an array


@dataclass(frozen=True, slots=True)
class JsonLine:
    """A line that is not parsed yet, so that another process can do it."""

    file: str
    number: int
    text: str

    def parse(self) -> Any:
        """The line's value, or a `BadRow`."""
        place = f"data file {self.file}, line {self.number}"
        mistake = undecoded(self.text, place)
        if mistake is not None:
            return mistake
        try:
            return json.loads(self.text, object_pairs_hook=unique_keys)
        except DoubledKey as error:
            return BadRow(DOUBLED_KEY, place, f"{DOUBLED_KEY} ({error})")
        except RecursionError:
            problem = "nested too deeply"
        except ValueError as error:
            problem = first_line(error)
        if self.number == 1 and self.text.startswith("["):
            return BadRow(NOT_JSON, place, f"not JSON ({problem})", fix="name the file .json if it is one array")
        return BadRow(NOT_JSON, place, f"not JSON ({problem})")


def jsonl_rows(path: Path) -> Iterator[tuple[int, JsonLine]]:
    """The lines of a file and their numbers, without empty ones."""
    with open_text(path, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            # Files joined by `cat` keep their byte order marks.
            text = line.strip().lstrip("\ufeff")
            if text:
                yield number, JsonLine(str(path), number, text)


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of the file's array, or its values one after the other, numbered from 1.

    A file of one value per line is read as `.jsonl` is. Raises `UserError` at the first mistake elsewhere, since
    nothing tells where the next element begins.
    """
    if _has_a_value_per_line(path):
        yield from jsonl_rows(path)
        return
    try:
        with open_text(path, newline=None) as file:
            yield from enumerate(json_values(file), start=1)
    except NotJson as error:
        near = "" if error.line is None else f" near line {error.line}"
        raise UserError(f"data file {path}: not JSON{near} ({first_line(error)}). Fix: {error.fix}.") from None


def _has_a_value_per_line(path: Path) -> bool:
    with open_text(path, newline="\n") as file:
        first = next((line for line in _short_lines(file) if line.strip()), "")
        try:
            value = json.loads(first)
        except (ValueError, RecursionError):
            return False
        # An array alone in its line is the file's array, unless more lines follow.
        return not isinstance(value, list) or any(line.strip() for line in itertools.islice(_short_lines(file), 9))


def _short_lines(file: Any) -> Iterator[str]:
    return iter(lambda: file.readline(FIRST_LINE_CHARACTERS), "")
