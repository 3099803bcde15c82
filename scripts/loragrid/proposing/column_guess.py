"""Prompt and reply among columns with unusual names: a guess, or a question in one line."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from loragrid.data.formats.detection import FORMAT_ROWS, LONGEST_NAME, row_format
from loragrid.data.formats.roles import known_roles
from loragrid.data.formats.row_format import PROMPTS, RowFormat
from loragrid.data.reading.sources import Source
from loragrid.errors import UserError

TABLES = (".csv", ".tsv")
# Names of a column with the class of a text.
LABELS = ("label", "labels", "class", "category", "sentiment", "target")
SHOWN = 12  # names of columns in a message
Row = Mapping[str, Any]


def guess_columns(source: Source) -> dict[str, str]:
    """Use → column: the only two that hold text, a text and its label, or a single one. Empty for a known form.

    Raises `UserError` for other columns, and for a file without a header.
    """
    rows = [row for _, row in itertools.islice(source.readable_rows(), FORMAT_ROWS) if isinstance(row, dict)]
    given = RowFormat("", "", roles=known_roles({}))
    forms = {found.name for row in rows if (found := row_format(row, given)) is not None}
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    if forms == {"text"}:
        return _text_and_label(names, rows)
    if not rows or forms:
        return {}
    _check_names(names, source)
    texts = [name for name in names if _holds_text(name, rows)]
    strings = [name for name in names if _holds_strings(name, rows)]
    labels = [name for name in names if name.strip().lower() in LABELS and name not in texts]
    # Two texts and a label, such as premise and hypothesis: neither text is the reply.
    if len(texts) == 2 and not labels:
        return dict(zip(("prompt", "reply"), texts, strict=True))
    if len(names) == len(texts) == 1:
        return {"text": texts[0]}
    numbers = [name for name in names if all(isinstance(row.get(name), int | float) for row in rows)]
    if len(strings) == len(texts) == 1 and numbers:
        problem = f"no column for the reply: beside {texts[0]} there are only numbers ({', '.join(numbers[:SHOWN])})"
        raise UserError(f'data {source.name}: {problem}. Fix: write the reply as text, such as "1" and not 1.')
    if len(strings) < 2:
        return {}  # the data stage says what is wrong
    prompt, reply = _likely(texts, strings, rows)
    raise UserError(
        f"data {source.name}: it is unclear which columns are prompt and reply ({', '.join(strings[:SHOWN])}). "
        f'Fix: name them, such as COLUMNS="{column_words({"prompt": prompt, "reply": reply})}".'
    )


def column_words(columns: Mapping[str, str]) -> str:
    """Columns as COLUMNS takes them, a name with a blank in quotes."""
    return " ".join(f"{use}='{name}'" if " " in name else f"{use}={name}" for use, name in columns.items())


def _text_and_label(names: Sequence[str], rows: Sequence[Row]) -> dict[str, str]:
    label = next((name for name in names if name.strip().lower() in LABELS and _holds_strings(name, rows)), None)
    text = next((name for name in names if name.strip().lower() == "text"), None)
    return {"prompt": text, "reply": label} if label and text else {}


def _check_names(names: Sequence[str], source: Source) -> None:
    longest = max(names, key=len, default="")
    if len(longest) <= LONGEST_NAME:
        return
    if any(ending in source.name.lower() for ending in TABLES):
        problem = "the first line seems to be a row and not the column names"
        fix = "write a line such as question,answer above it"
    else:
        problem = "a text is in the place of a field name"
        fix = 'give a list of rows, such as [{"question": "…", "answer": "…"}, …]'
    raise UserError(f"data {source.name}: {problem} ({longest[:LONGEST_NAME]}…). Fix: {fix}.")


def _likely(texts: Sequence[str], strings: Sequence[str], rows: Sequence[Row]) -> tuple[str, str]:
    """Prompt and reply for an example: a column with a usual name, or the first; a label, or the longest text."""
    candidates = texts or strings
    named = {name.lower(): name for name in candidates}
    prompt = next((named[name] for name in PROMPTS if name in named), candidates[0])
    others = [name for name in strings if name.strip().lower() in LABELS and name != prompt]
    others = others or [name for name in texts if name != prompt] or [name for name in strings if name != prompt]
    return prompt, max(others, key=lambda name: sum(len(row.get(name) or "") for row in rows))


def _holds_strings(name: str, rows: Sequence[Row]) -> bool:
    values = [row.get(name) for row in rows]
    return all(value is None or isinstance(value, str) for value in values) and any(map(_filled, values))


def _holds_text(name: str, rows: Sequence[Row]) -> bool:
    """Whether most of a column's values are texts and no numbers."""
    if not _holds_strings(name, rows):
        return False
    filled = [row[name] for row in rows if _filled(row.get(name))]
    return sum(not _is_number(value) for value in filled) > len(filled) / 2


def _filled(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
