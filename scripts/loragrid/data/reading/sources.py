"""Sources of rows, read as a stream: a file, a folder of files, a hub data set, or the demo's generator.

Rows are numbered from 1; in files of lines the number is that of the line where the row begins. In a folder the numbers
of a file go on where those of the file before it end. Rows are not judged here.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loragrid.data.reading.bad_rows import BadRow, checked
from loragrid.data.reading.files import Rows, file_reader, folder_readers, is_documentation
from loragrid.data.reading.hub import hub_rows
from loragrid.data.reading.json_files import JsonLine
from loragrid.errors import UserError
from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.study.file_paths import visible_files
from loragrid.study.sections import DataSource


@dataclass(frozen=True)
class Source:
    """Rows that can be read more than once: each call of `raw_rows` or `rows` starts at the first.

    `name` is for messages, `description` for the data card. `raw_rows` gives rows for `read_row`. `bad_rows` says
    what happens to rows that cannot be read, "stop" or "drop". `files`: name and first row's number of each file of a
    folder, as far as it has been read.
    """

    name: str
    description: dict[str, Any]
    raw_rows: Callable[[], Rows]
    bad_rows: str = "stop"
    files: dict[str, int] = field(default_factory=dict)

    def rows(self) -> Rows:
        """(Number, value) of each row; a `BadRow` is the value of a row that cannot be read and is to be dropped.

        Raises `UserError` at the first such row if it is to stop the run.
        """
        for number, raw in self.raw_rows():
            yield number, read_row(raw, self.bad_rows)

    def readable_rows(self) -> Rows:
        """The rows without those that are dropped because they cannot be read."""
        return ((number, row) for number, row in self.rows() if not isinstance(row, BadRow))


def read_row(raw: Any, bad_rows: str) -> Any:
    """The value of a row from `Source.raw_rows`, in any process; see `Source.rows`."""
    return checked(raw.parse() if isinstance(raw, JsonLine) else raw, bad_rows)


def open_source(
    source: DataSource, *, folder: Path, file_name: str = "source.jsonl", bad_rows: str | None = "stop"
) -> Source:
    """Open a source of the study; a generator writes its rows to `file_name` in `folder`.

    Raises `UserError` for a file that is missing, unreadable or of an unknown kind, for a hub data
    set that cannot be loaded, and for an unknown generator.
    """
    bad_rows = bad_rows or "stop"
    if source.path is not None:
        path = Path(source.path)
        return _folder_source(path, bad_rows) if path.is_dir() else _file_source(path, {"path": path.name}, bad_rows)
    if source.hub is not None:
        description, rows = hub_rows(source.hub, revision=source.revision, split=source.split)
        return Source(f"{source.hub}, split {source.split}", description, rows, bad_rows)
    return _generated_source(source, folder / file_name)


def _file_source(path: Path, description: dict[str, Any], bad_rows: str) -> Source:
    if not path.is_file():
        raise UserError(f"data file {path}: the file does not exist. Fix: check the path in the study file.")
    reader = file_reader(path)
    return Source(str(path), description | {"sha256": _digest(path)}, lambda: reader(path), bad_rows)


def _folder_source(folder: Path, bad_rows: str) -> Source:
    found = visible_files(folder)
    files = [file for file in found if not is_documentation(file)]
    readers = folder_readers(folder, files)
    names = [file.relative_to(folder).as_posix() for file in files]
    digest = sha256_json([[name, _digest(file)] for name, file in zip(names, files, strict=True)])
    first_rows: dict[str, int] = {}

    def rows() -> Iterator[tuple[int, Any]]:
        before = 0
        for name, file, reader in zip(names, files, readers, strict=True):
            first_rows[name] = before + 1
            number = 0
            for number, row in reader(file):
                yield before + number, row
            before += number

    description = {"path": folder.name, "files": len(files), "sha256": digest}
    not_read = [file.relative_to(folder).as_posix() for file in found if file not in files]
    if not_read:
        description["files_not_read"] = not_read
    return Source(str(folder), description, rows, bad_rows, first_rows)


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise UserError(f"data file {path}: not readable ({error.strerror}). Fix: check its permissions.") from None


def _generated_source(source: DataSource, path: Path) -> Source:
    if source.generator != "running_plans":
        raise UserError(f"data: the generator of a source is unknown ({source.generator!r}). Fix: use running_plans.")
    from loragrid.demo.running_plans import generate_chat

    # Written to a file, so that the rows stay beside their data set and are read like any others.
    with open(path, "w", encoding="utf-8") as file:
        for row in generate_chat(rows=source.rows, seed=source.seed):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    description = {"generator": source.generator, "rows": source.rows, "seed": source.seed}
    return _file_source(path, description, "stop")
