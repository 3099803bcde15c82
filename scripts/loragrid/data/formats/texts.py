"""Values of a row as text, and rows without the nulls that columnar files fill in."""

import ast
import json
import re
import warnings
from typing import Any

from loragrid.data.formats.reasons import NOT_TEXT, UnusableRow

ONLY_TEXT = {str}
BLANK = re.compile(r"[\s\u00ad\u200b-\u200f\u2060\ufeff]*")  # white space and invisible characters
THOUGHT_PARTS = ("thinking", "reasoning")  # types of content parts, and the keys of their text


def without_nulls(value: Any) -> Any:
    """The value without keys that are None, at any depth; the value itself where it has none.

    Arrow gives each struct all keys of its column: without them, a Parquet file and a JSONL file of
    the same rows are equal.
    """
    if isinstance(value, dict):
        if set(map(type, value.values())) == ONLY_TEXT:  # nearly every turn: the fast way
            return value
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def checked_text(value: Any, reason_if_empty: str, *, optional: bool = False) -> str:
    """The value if it is text. Raises `UnusableRow` for other values, and for blank text unless `optional`."""
    if value is None or (isinstance(value, str) and BLANK.fullmatch(value)):
        if optional:
            return value or ""
        raise UnusableRow(reason_if_empty)
    if not isinstance(value, str):
        raise UnusableRow(NOT_TEXT)
    if not value.isascii():
        check_encodable(value)
    return value


def system_text(value: Any) -> tuple[str, set[str]]:
    """A system prompt as text, and its keys that are not read: text, a turn, or a list of texts or parts.

    "" for any other value.
    """
    unread: set[str] = set()
    if isinstance(value, dict):
        unread = {f".{key}" for key in value if key not in ("role", "content")}
        value = value.get("content")
    if isinstance(value, list):
        between = "\n" if all(isinstance(part, str) for part in value) else ""
        try:
            found = [join_parts([part], thoughts=False) for part in value]
        except UnusableRow:
            return "", set()
        value = between.join(text for text, _, _ in found)
        unread |= {f"[].{key}" for _, _, keys in found for key in keys}
    if not isinstance(value, str):
        return "", set()
    return checked_text(value, NOT_TEXT, optional=True), unread


def check_encodable(text: str, reason: str = NOT_TEXT) -> None:
    """Raise `UnusableRow` for a lone surrogate: valid in JSON, but no tokenizer can read it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnusableRow(reason) from None


def is_empty(value: Any) -> bool:
    """Whether a value holds nothing that could have been used."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def as_list(value: Any) -> list[Any] | None:
    """A list, also one that is given as JSON text, as Python prints it, or as lists by key; None for anything else.

    Older data sets of the hub give [{"role": …}, …] as {"role": […], …}.
    """
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        lengths = {len(item) if isinstance(item, list) else -1 for item in value.values()}
        if len(lengths) != 1 or -1 in lengths:
            return None
        return [without_nulls(dict(zip(value, items))) for items in zip(*value.values())]
    if isinstance(value, str) and value.lstrip().startswith("["):
        return _parsed_list(value)
    return None


def _parsed_list(text: str) -> list[Any] | None:
    try:
        return without_nulls(json.loads(text))
    except RecursionError:
        return None
    except ValueError:
        pass
    # Tables saved from Python hold lists as it prints them.
    try:
        with warnings.catch_warnings(action="ignore"):
            parsed = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return without_nulls(parsed) if isinstance(parsed, list) else None


def check_json(value: Any, reason: str) -> None:
    """Raise `UnusableRow` for a value that no JSON text can hold, such as a date or a lone surrogate in it."""
    try:
        check_encodable(json.dumps(value, ensure_ascii=False), reason)
    except (TypeError, ValueError):
        raise UnusableRow(reason) from None


def join_parts(parts: list[Any], *, thoughts: bool) -> tuple[str, str, set[str]]:
    """Text, thoughts and keys that are not read of [{"type": "text", "text": "…"}, …].

    Raises `UnusableRow` for parts that are not text, such as images and sound, and for thoughts
    where none belong.
    """
    texts, thought, unread = [], [], set()
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise UnusableRow(NOT_TEXT)
        key = "text"
        if thoughts and part.get("type") in THOUGHT_PARTS and "text" not in part:
            key = part["type"]
        text = part.get(key)
        if not isinstance(text, str):
            raise UnusableRow(NOT_TEXT)
        is_thought = thoughts and part.get("type") in THOUGHT_PARTS
        (thought if is_thought else texts).append(text)
        unread |= {name for name, value in part.items() if name not in (key, "type") and not is_empty(value)}
    return "".join(texts), "".join(thought), unread
