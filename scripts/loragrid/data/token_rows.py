"""Writer of tokenised rows: a Parquet file, filled row by row, and the digest of its rows."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loragrid.data.rendering.tokenizing import EncodedChat, count_loss_tokens

if TYPE_CHECKING:
    import pyarrow

ROW_GROUP = 5_000  # bounds the memory of rows that wait to be written


class TokenRowWriter:
    """Writes `row` (int64), `input_ids` and `labels` (lists of int32); use it in a `with` block.

    Afterwards `rows`, `tokens` and `loss_tokens` hold the totals, `largest_id` the largest token id, and `fingerprint`
    the SHA-256 over the rows in order, as `training_data.rows_sha256` computes it from the file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        tokens = pyarrow.list_(pyarrow.int32())
        schema = pyarrow.schema({"row": pyarrow.int64(), "input_ids": tokens, "labels": tokens})
        self._writer = parquet.ParquetWriter(path, schema)
        self._pending: list[tuple[int, EncodedChat]] = []
        self._digest = hashlib.sha256()
        self.rows = self.tokens = self.loss_tokens = self.largest_id = 0

    def __enter__(self) -> "TokenRowWriter":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        # After an error the file is thrown away, but it must still be closed.
        if kind is None:
            self._flush()
        self._writer.close()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the rows added so far, hexadecimal."""
        return self._digest.hexdigest()

    def add(self, row: int, encoded: EncodedChat) -> None:
        """Append a row; `row` is its number in the source."""
        self._pending.append((row, encoded))
        # The length comes first, so that tokens cannot move from one row to the next unnoticed.
        self._digest.update(len(encoded.input_ids).to_bytes(8, "little"))
        for values in (encoded.input_ids, encoded.labels):
            self._digest.update(values.astype("<i4").tobytes())
        self.rows += 1
        self.tokens += len(encoded.input_ids)
        self.largest_id = max(self.largest_id, int(encoded.input_ids.max()))
        self.loss_tokens += count_loss_tokens(encoded.labels)
        if len(self._pending) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        import pyarrow

        columns = {
            "row": pyarrow.array([row for row, _ in self._pending], pyarrow.int64()),
            "input_ids": _list_array([encoded.input_ids for _, encoded in self._pending]),
            "labels": _list_array([encoded.labels for _, encoded in self._pending]),
        }
        self._writer.write_table(pyarrow.table(columns, schema=self._writer.schema))
        self._pending = []


def _list_array(values: list[np.ndarray]) -> "pyarrow.ListArray":
    import pyarrow

    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int32)
    flat = pyarrow.array(np.concatenate(values), pyarrow.int32())
    return pyarrow.ListArray.from_arrays(offsets, flat)
