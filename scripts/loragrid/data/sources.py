"""Where rows come from: a JSON, JSONL or Parquet file, a hub data set, or the demo's generator, read as a stream.

A row is numbered from 1; in a JSONL file the number is that of its line. Nothing in a row is judged here.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from loragrid.errors import UserError
from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.study.sections import DataSource

CHUNK_CHARACTERS = 2**20
BATCH_ROWS = 1_000
NOT_JSON = "is not JSON"
COMMIT = re.compile(r"[0-9a-f]{40}")
JSON_SPACE = re.compile(r"[ \t\r\n]*")

Rows = Iterator[tuple[int, Any]]


@dataclass(frozen=True)
class Source:
    """Rows that can be read more than once: `rows()` starts from the first. `description` goes into the data card."""

    name: str
    description: dict[str, Any]
    rows: Callable[[], Rows]


def open_source(source: DataSource, *, folder: Path) -> Source:
    """The study's `data.source`, opened. `folder` receives what a generator writes (`source.jsonl`).

    Errors: a file that is missing, of an unknown kind or unreadable, a hub data set that cannot be had.
    """
    if source.path is not None:
        return _file_source(Path(source.path), {"path": Path(source.path).name})
    if source.hub is not None:
        return _hub_source(source.hub, revision=source.revision, split=source.split)
    return _generated_source(source, folder)


def _file_source(path: Path, description: dict[str, Any]) -> Source:
    if not path.is_file():
        raise UserError(f"data file {path} does not exist: check data.source.path")
    readers = {".json": _json_rows, ".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"data file {path}: kind {path.suffix!r} is not read: give one of {', '.join(readers)}")
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise UserError(f"data file {path} cannot be read ({error.strerror}): check its permissions") from None
    return Source(name=str(path), description=description | {"sha256": digest}, rows=lambda: reader(path))


def _generated_source(source: DataSource, folder: Path) -> Source:
    if source.generator != "running_plans":
        raise UserError(f"data.source.generator: {source.generator!r} is unknown: take running_plans")
    from loragrid.demo.plans import generate_chat

    path = folder / "source.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for row in generate_chat(rows=source.rows, seed=source.seed):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return _file_source(path, {"generator": source.generator, "rows": source.rows, "seed": source.seed})


def _jsonl_rows(path: Path) -> Rows:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, json.loads(text)
            except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
                raise UserError(
                    f"data file {path}, line {number} {NOT_JSON} ({_reason(error)}): mend the line or take it out"
                ) from None


def _json_rows(path: Path) -> Rows:
    """Elements of one array, or the values of a file that holds one object or one object after the other."""
    with open(path, encoding="utf-8-sig") as file:
        text = _JsonText(file)
        try:
            yield from enumerate(_array(text) if text.peek() == "[" else _values(text), start=1)
        except json.JSONDecodeError as error:
            line = text.line + error.lineno - 1
            raise UserError(
                f"data file {path} {NOT_JSON} near line {line} ({error.msg}): mend it, or give one object a line as .jsonl"
            ) from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"data file {path} {NOT_JSON} ({_reason(error)}): mend it") from None


def _array(text: "_JsonText") -> Iterator[Any]:
    text.skip()
    if text.peek() == "]":
        text.skip()
    else:
        while True:
            text.peek()
            yield text.value()
            mark = text.peek()
            if mark not in (",", "]"):
                raise json.JSONDecodeError("expecting ',' or ']'", text.text, text.at)
            text.skip()
            if mark == "]":
                break
    if text.peek():
        raise json.JSONDecodeError("text after the end of the array", text.text, text.at)


def _values(text: "_JsonText") -> Iterator[Any]:
    while text.peek():
        yield text.value()


class _JsonText:
    """A window on a JSON text, so that an array of any length is read value by value in flat memory."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.decoder = file, json.JSONDecoder()
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def peek(self) -> str:
        """The next character that is not white space, "" at the end of the file."""
        while True:
            self.at = JSON_SPACE.match(self.text, self.at).end()
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                return ""
            self._read(CHUNK_CHARACTERS)

    def skip(self) -> None:
        self.at += 1

    def value(self) -> Any:
        """Decode the value that starts here, reading on while the window holds only a part of it."""
        size = CHUNK_CHARACTERS
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
                # A number that ends with the window may go on behind it.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            except json.JSONDecodeError:
                if self.ended:
                    raise
            self._read(size)
            size *= 2  # each byte is decoded a bounded number of times, however long the value

    def _read(self, size: int) -> None:
        self.line += self.text.count("\n", 0, self.at)
        more = self.file.read(size)
        self.ended = not more
        self.text, self.at = self.text[self.at :] + more, 0


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
        raise UserError(f"data file {path} cannot be read as Parquet ({_reason(error)}): fetch it again") from None


def _hub_source(hub: str, *, revision: str | None, split: str) -> Source:
    """A data set of the Hugging Face hub, or a folder in the hub's layout, which `load_dataset` takes as well."""
    import datasets

    commit = None if Path(hub).is_dir() else _hub_commit(hub, revision)
    try:
        loaded = datasets.load_dataset(hub, revision=commit, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"data set {hub}, split {split!r} cannot be loaded ({_reason(error)}): check data.source and the network"
        ) from None

    def rows() -> Rows:
        number = 0
        for batch in loaded.iter(batch_size=BATCH_ROWS):
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield number, dict(zip(batch, values, strict=True))

    origin = {"commit": commit} if commit else {"sha256": _folder_sha256(Path(hub))}
    return Source(name=f"{hub}, split {split}", description={"hub": hub, "split": split} | origin, rows=rows)


def _hub_commit(hub: str, revision: str | None) -> str:
    """The commit that a revision stands for: asked of the hub, or, without a network, as the local cache knows it."""
    if revision and COMMIT.fullmatch(revision):
        return revision
    import httpx
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().dataset_info(hub, revision=revision).sha
    except (httpx.HTTPError, OSError, ValueError) as error:
        cache = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"datasets--{hub.replace('/', '--')}"
        known = cache / "refs" / (revision or "main")
        if known.is_file():
            return known.read_text().strip()
        raise UserError(
            f"data set {hub} at revision {revision or 'main'} is neither on the hub nor in the local cache "
            f"({_reason(error)}): check the id, the revision and the network"
        ) from None


def _folder_sha256(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_json([[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files])


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
