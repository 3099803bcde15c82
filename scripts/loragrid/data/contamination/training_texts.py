"""The texts of a prepared data set's training rows, read again from their sources."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from loragrid.data.formats.conversation import whole_text
from loragrid.data.formats.conversation_formats import to_conversation
from loragrid.data.formats.detection import with_format
from loragrid.data.reading.sources import Source, open_source
from loragrid.errors import UserError, first_line
from loragrid.records.seal import check_sealed
from loragrid.study.sections import DataSet
from loragrid.study.study_file import Study


def training_texts(study: Study, folder: Path, card: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """(Row number in the set, text) of every row in `folder`/train.parquet, one after the other.

    A text is that of all turns, whole: it is taken from the source and not from the tokens, where a
    template's words stand between the turns and long rows are cut. Raises `UserError` if the rows
    cannot be read, or if a source is no longer the one in the data card.
    """
    check_sealed(folder)
    numbers = _row_numbers(folder / "train.parquet")
    for part in card["sources"]:
        before = part["first_row"] - 1
        with tempfile.TemporaryDirectory() as temporary:
            entry = study.data[part["set"]]
            source = _open_again(entry, part["source"], Path(temporary))
            row_format, rows = with_format(
                source.readable_rows(), entry.columns or {}, entry.roles or {}, source_name=source.name
            )
            for number, row in rows:
                if before + number in numbers:
                    messages = to_conversation(row, row_format).messages
                    yield before + number, "\n".join(whole_text(message) for message in messages)


def _row_numbers(parquet: Path) -> set[int]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(parquet, columns=["row"], use_threads=False)
        return set(table.column("row").to_pylist())
    except (OSError, pyarrow.ArrowException, KeyError) as error:
        raise UserError(
            f"{parquet}: not readable as a tokenised data set ({first_line(error)}). Fix: run prepare_data again."
        ) from None


def _open_again(entry: DataSet, described: dict[str, Any], folder: Path) -> Source:
    """The source as the data card describes it; a generator writes its rows to `folder`."""
    source = entry.source
    if described.get("commit"):
        # A branch may have moved on since the rows were prepared.
        source = replace(source, revision=described["commit"])
    opened = open_source(source, folder=folder, bad_rows=entry.bad_rows)
    for key in ("sha256", "commit"):
        if opened.description.get(key) != described.get(key):
            raise UserError(
                f"data {opened.name}: the rows have changed since they were prepared "
                f"({key} {opened.description.get(key)}). Fix: run prepare_data again."
            )
    return opened
