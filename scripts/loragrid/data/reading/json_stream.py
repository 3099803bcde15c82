"""The values of a JSON file, one after the other, in memory bounded by the largest value."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from loragrid.data.reading.bad_rows import DOUBLED_KEY
from loragrid.data.reading.text_files import UNDECODED, undecoded

CHUNK_CHARACTERS = 2**20
FIX = "give one JSON array, or one object per line as .jsonl"
JSON_SPACE = re.compile(r"[ \t\r\n]*")


class DoubledKey(ValueError):
    """An object with a key that it has already; the message is the key."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs. Raises `DoubledKey`, since all but the last of its values would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise DoubledKey(next(name for name in names if names.count(name) > 1))
    return found


class NotJson(Exception):
    """A file that is not JSON; the message is the reason, `line` its place, None if unknown."""

    def __init__(self, reason: str, *, line: int | None = None, fix: str = FIX) -> None:
        super().__init__(reason)
        self.line, self.fix = line, fix


def json_values(file: TextIO) -> Iterator[Any]:
    """The elements of the file's one array, or its values if the file holds one after the other.

    Raises `NotJson` at the first mistake and what `file` raises if it cannot be read.
    """
    reader = _JsonReader(file)
    try:
        if reader.peek() == "[":
            yield from _array_elements(reader)
        else:
            while reader.peek():
                yield reader.read_value()
    except json.JSONDecodeError as error:
        # The error counts lines from the start of the window.
        raise NotJson(error.msg, line=reader.line + error.lineno - 1) from None
    except RecursionError:
        raise NotJson("nested too deeply") from None
    except DoubledKey as error:
        raise NotJson(f"{DOUBLED_KEY}: {error}", line=reader.line, fix="delete one of the two") from None
    except ValueError as error:  # a number of thousands of digits
        raise NotJson(str(error)) from None


def _array_elements(reader: "_JsonReader") -> Iterator[Any]:
    reader.skip()
    if reader.peek() == "]":
        reader.skip()
    else:
        mark = ","
        while mark == ",":
            reader.peek()
            yield reader.read_value()
            mark = reader.peek()
            if mark not in (",", "]"):
                raise reader.error("expecting ',' or ']'")
            reader.skip()
    if reader.peek():
        raise reader.error("text after the end of the array")


class _JsonReader:
    """A window on the text of a file. `line`: the number of the line where the window starts."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.decoder = file, json.JSONDecoder(object_pairs_hook=unique_keys)
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def peek(self) -> str:
        """The next character that is not white space, "" at the end of the file."""
        while True:
            self.at = JSON_SPACE.match(self.text, self.at).end()
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                return ""
            self._extend(CHUNK_CHARACTERS)

    def skip(self) -> None:
        """Move past one character."""
        self.at += 1

    def read_value(self) -> Any:
        """Decode the value at the current place, extending the window until it is whole."""
        size = CHUNK_CHARACTERS
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
                # A number at the end of the window may have more digits in the file.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            except json.JSONDecodeError:
                if self.ended:
                    raise
            self._extend(size)
            # Doubling bounds how often each character of a long value is decoded again.
            size *= 2

    def error(self, message: str) -> json.JSONDecodeError:
        """A syntax error at the current place."""
        return json.JSONDecodeError(message, self.text, self.at)

    def _extend(self, size: int) -> None:
        """Drop the text before the current place and read `size` more characters."""
        self.line += self.text.count("\n", 0, self.at)
        more = self.file.read(size)
        mistake = undecoded(more, "")
        if mistake is not None:
            rest = self.text[self.at :] + more[: more.index(UNDECODED)]
            raise NotJson(mistake.problem, line=self.line + rest.count("\n"), fix=mistake.fix)
        self.ended = not more
        self.text, self.at = self.text[self.at :] + more, 0
