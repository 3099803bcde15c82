"""Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, first_line

BATCH_ROWS = 1_000


def parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a Parquet file, numbered from 1. Raises `UserError` for a file that is not whole."""
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"data file {path}: not readable as Parquet ({first_line(error)}). Fix: fetch the file again."
        ) from None


def _check_columns(path: Path, names: list[str]) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UserError(f"data file {path}: two columns have the same name ({doubled[0]}). Fix: rename one of them.")
