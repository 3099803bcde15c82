"""Sources of rows, read as a stream: a file, a hub data set, or the demo's generator.

Rows are numbered from 1; in a JSONL file the number is that of the line. Rows are not judged here.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.data.reading.json_stream import NotJson, json_values
from loragrid.errors import UserError, first_line
from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.study.sections import DataSource

BATCH_ROWS = 1_000
COMMIT = re.compile(r"[0-9a-f]{40}")

Rows = Iterator[tuple[int, Any]]


@dataclass(frozen=True)
class Source:
    """Rows that can be read more than once: each call of `rows` starts at the first.

    `name` is for messages, `description` for the data card.
    """

    name: str
    description: dict[str, Any]
    rows: Callable[[], Rows]


def open_source(source: DataSource, *, folder: Path, file_name: str = "source.jsonl") -> Source:
    """Open a source of the study; a generator writes its rows to `file_name` in `folder`.

    Raises `UserError` for a file that is missing, unreadable or of an unknown kind, for a hub data
    set that cannot be loaded, and for an unknown generator.
    """
    if source.path is not None:
        return _file_source(Path(source.path), {"path": Path(source.path).name})
    if source.hub is not None:
        return _hub_source(source.hub, revision=source.revision, split=source.split)
    return _generated_source(source, folder / file_name)


def _file_source(path: Path, description: dict[str, Any]) -> Source:
    if not path.is_file():
        raise UserError(f"data file {path}: the file does not exist. Fix: check the path in the study file.")
    readers = {
        ".json": _json_rows,
        ".jsonl": _jsonl_rows,
        ".ndjson": _jsonl_rows,
        ".parquet": _parquet_rows,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"data file {path}: files of kind {path.suffix!r} are not supported. Fix: give one of {', '.join(readers)}."
        )
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise UserError(f"data file {path}: not readable ({error.strerror}). Fix: check its permissions.") from None
    description = description | {"sha256": digest}
    return Source(name=str(path), description=description, rows=lambda: reader(path))


def _generated_source(source: DataSource, path: Path) -> Source:
    if source.generator != "running_plans":
        raise UserError(f"data: the generator of a source is unknown ({source.generator!r}). Fix: use running_plans.")
    from loragrid.demo.running_plans import generate_chat

    # Written to a file, so that the rows stay beside their data set and are read like any others.
    with open(path, "w", encoding="utf-8") as file:
        for row in generate_chat(rows=source.rows, seed=source.seed):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    description = {"generator": source.generator, "rows": source.rows, "seed": source.seed}
    return _file_source(path, description)


def _jsonl_rows(path: Path) -> Rows:
    # Decoded line by line, so that a mistake in the encoding has a line number too.
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, json.loads(text)
            except RecursionError:
                raise _bad_line(path, number, "nested too deeply") from None
            except ValueError as error:  # UnicodeDecodeError and JSONDecodeError
                raise _bad_line(path, number, first_line(error)) from None


def _bad_line(path: Path, number: int, reason: str) -> UserError:
    return UserError(f"data file {path}, line {number}: not JSON ({reason}). Fix: delete the line or correct it.")


def _json_rows(path: Path) -> Rows:
    try:
        yield from enumerate(json_values(path), start=1)
    except NotJson as error:
        near = "" if error.line is None else f" near line {error.line}"
        raise UserError(
            f"data file {path}: not JSON{near} ({first_line(error)}). "
            "Fix: give one JSON array, or one object per line as .jsonl."
        ) from None


def _parquet_rows(path: Path) -> Rows:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"data file {path}: not readable as Parquet ({first_line(error)}). Fix: fetch the file again."
        ) from None


def _hub_source(hub: str, *, revision: str | None, split: str) -> Source:
    """A data set of the Hugging Face hub, or a local folder in the hub's layout."""
    import datasets

    is_folder = Path(hub).is_dir()
    commit = None if is_folder else _hub_commit(hub, revision)
    try:
        loaded = datasets.load_dataset(hub, revision=commit, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"data set {hub}, split {split!r}: cannot be loaded ({first_line(error)}). "
            "Fix: check the source in the study file and the network."
        ) from None

    def rows() -> Rows:
        number = 0
        # Batches of columns are read much faster than single rows.
        for batch in loaded.iter(batch_size=BATCH_ROWS):
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield number, dict(zip(batch, values, strict=True))

    description = {"hub": hub, "split": split}
    description |= {"sha256": _folder_sha256(Path(hub))} if is_folder else {"commit": commit}
    return Source(name=f"{hub}, split {split}", description=description, rows=rows)


def _hub_commit(hub: str, revision: str | None) -> str:
    """The commit of a revision, from the hub or, without a network, from the local cache."""
    if revision and COMMIT.fullmatch(revision):
        return revision
    import httpx
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().dataset_info(hub, revision=revision).sha
    except (httpx.HTTPError, OSError, ValueError) as error:
        cache = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"datasets--{hub.replace('/', '--')}"
        cached_commit = cache / "refs" / (revision or "main")
        if cached_commit.is_file():
            return cached_commit.read_text().strip()
        raise UserError(
            f"data set {hub}, revision {revision or 'main'}: neither on the hub nor in the local "
            f"cache ({first_line(error)}). Fix: check the id, the revision and the network."
        ) from None


def _folder_sha256(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_json([[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files])
