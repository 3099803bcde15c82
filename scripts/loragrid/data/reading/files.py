"""Local files and folders of files as numbered rows, by the kind that their names tell."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loragrid.data.reading.delimited import csv_rows, tsv_rows
from loragrid.data.reading.json_files import json_rows, jsonl_rows
from loragrid.data.reading.parquet_files import parquet_rows
from loragrid.data.reading.text_files import CODECS, open_text, undecoded
from loragrid.errors import UserError

Rows = Iterator[tuple[int, Any]]
Reader = Callable[[Path], Rows]


def _document_row(path: Path) -> Rows:
    """A plain text as one row."""
    with open_text(path, newline=None) as file:
        text = file.read()
    yield 1, undecoded(text, f"data file {path}") or {"text": text}


TEXT_READERS: dict[str, Reader] = {
    ".json": json_rows,
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".csv": csv_rows,
    ".tsv": tsv_rows,
}
KINDS = f"{', '.join(TEXT_READERS)} (each also with {' or '.join(CODECS)}) or .parquet"
# What a folder of data has beside its data: README.md, LICENSE, CITATION.cff and the like.
DOCUMENTATION = ("readme", "license", "licence", "notice", "citation", "changelog", "authors")
ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".xz")
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")


def file_reader(path: Path) -> Reader:
    """The reader of a file. Raises `UserError` for a kind that is not read."""
    *_, before, last = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    compressed = last in CODECS
    kind = before if compressed else last
    if kind in TEXT_READERS:
        return TEXT_READERS[kind]
    if kind == ".parquet" and not compressed:
        return parquet_rows
    if kind in SPREADSHEETS:
        raise UserError(f"data file {path}: spreadsheets are not read ({kind}). Fix: export the sheet as CSV in UTF-8.")
    shown = f"{before}{last}" if compressed else last
    if kind in ARCHIVES:
        raise UserError(f"data file {path}: archives are not read ({shown}). Fix: unpack it.")
    if kind == ".txt":
        raise UserError(
            f"data file {path}: nothing tells where a row of a plain text ends ('.txt'). "
            'Fix: give a folder with a .txt file per row, or a .jsonl file with {"text": "…"} in each line.'
        )
    raise UserError(f"data file {path}: files of kind {shown!r} are not supported. Fix: give one of {KINDS}.")


def folder_readers(folder: Path, files: list[Path]) -> list[Reader]:
    """The reader of each file of a folder.

    Raises `UserError` for a folder without files and for a file of a kind that is not read.
    """
    if not files:
        raise UserError(f"data folder {folder}: it holds no file. Fix: put files of kind {KINDS} there.")
    # A notes.txt beside other files is no row, so plain texts are read only among themselves.
    if all(_is_plain_text(file) for file in files):
        return [_document_row] * len(files)
    return [file_reader(file) for file in files]


def is_documentation(path: Path) -> bool:
    """Whether a file of a data folder is about the data and holds none: README.md, LICENSE.

    Files of a kind that holds rows, such as license.jsonl, are data.
    """
    kinds = {suffix.lower() for suffix in path.suffixes}
    return path.name.split(".")[0].lower() in DOCUMENTATION and not kinds & {*TEXT_READERS, ".parquet"}


def _is_plain_text(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in CODECS]
    return suffixes[-1:] == [".txt"]
