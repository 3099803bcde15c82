"""Tokenised rows on their way to a Parquet file: written as they come, with the digest of what is trained on."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loragrid.data.tokenizing import Encoded, loss_tokens

if TYPE_CHECKING:
    import pyarrow

ROW_GROUP = 5_000  # rows held before they are written


class TokenRows:
    """A writer of `row` (int64), `input_ids` and `labels` (lists of int32), to be used in a `with` block.

    Afterwards `rows`, `tokens` and `loss_tokens` hold totals, and `fingerprint` the SHA-256 over the rows in order, as
    `training_data.rows_sha256` computes it from the file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        tokens = pyarrow.list_(pyarrow.int32())
        schema = pyarrow.schema({"row": pyarrow.int64(), "input_ids": tokens, "labels": tokens})
        self._writer = parquet.ParquetWriter(path, schema)
        self._held: list[tuple[int, Encoded]] = []
        self._digest = hashlib.sha256()
        self.rows = self.tokens = self.loss_tokens = 0

    def __enter__(self) -> "TokenRows":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def add(self, row: int, encoded: Encoded) -> None:
        self._held.append((row, encoded))
        self._digest.update(len(encoded.input_ids).to_bytes(8, "little"))
        for values in (encoded.input_ids, encoded.labels):
            self._digest.update(values.astype("<i4").tobytes())
        self.rows += 1
        self.tokens += len(encoded.input_ids)
        self.loss_tokens += loss_tokens(encoded.labels)
        if len(self._held) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            import pyarrow

            columns = {
                "row": pyarrow.array([row for row, _ in self._held], pyarrow.int64()),
                "input_ids": _lists([encoded.input_ids for _, encoded in self._held]),
                "labels": _lists([encoded.labels for _, encoded in self._held]),
            }
            self._writer.write_table(pyarrow.table(columns, schema=self._writer.schema))
            self._held = []


def _lists(values: list[np.ndarray]) -> "pyarrow.ListArray":
    import pyarrow

    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int32)
    return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(np.concatenate(values), pyarrow.int32()))
