"""Paths of this machine, which are private and of no use to others: no exported file contains one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loragrid.paths import ROOT
from loragrid.study.study_file import Study


def private_paths(study: Study, results: Path) -> list[str]:
    """Absolute paths that the study names or is stored in, the longest first.

    One of a single part, such as /app, is left out: it may be a word of any text.
    """
    named = [Path(text) for text in _texts(study.yaml) if text.startswith("/")]
    found = {str(path) for path in (*named, ROOT, results.resolve(), study.path.resolve()) if len(path.parts) > 2}
    return sorted(found, key=len, reverse=True)


def without_paths(text: str, paths: list[str]) -> str:
    """The text with the last part of each of the paths in its place."""
    for path in paths:
        text = text.replace(path, Path(path).name)
    return text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
