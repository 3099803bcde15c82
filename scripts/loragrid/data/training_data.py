"""The tokenised rows of a data set, as the train stage reads them."""

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, first_line
from loragrid.runtime.atomic_files import read_json

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from datasets import Dataset


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on and to hold out: columns row, input_ids, labels (-100: no loss); and the data card."""

    train: "Dataset"
    heldout: "Dataset"
    card: dict[str, Any]


def load_training_data(folder: Path) -> TrainingData:
    """Read `train.parquet`, `heldout.parquet` and `card.json`; rows that are not those of the card are refused."""
    from datasets import Dataset

    card = read_json(folder / "card.json")
    if not isinstance(card, dict):
        raise UserError(f"{folder / 'card.json'} is no data card: delete it and run prepare_data again")
    tables = {}
    for name, field in (("train", "fingerprint"), ("heldout", "heldout_fingerprint")):
        path = folder / f"{name}.parquet"
        tables[name] = _read(path)
        if rows_sha256(tables[name]) != card.get(field):
            raise UserError(
                f"{path} does not hold the rows that {folder / 'card.json'} describes ({field} differs): "
                "run prepare_data again"
            )
    return TrainingData(train=Dataset(tables["train"]), heldout=Dataset(tables["heldout"]), card=card)


def rows_sha256(table: "pyarrow.Table") -> str:
    """SHA-256 over the rows' tokens and labels, in order: what is trained on, however the file was written.

    Per row the number of tokens (int64), then input_ids and labels (int32), little-endian.
    """
    digest = hashlib.sha256()
    (tokens, starts), (labels, label_starts) = (_flat(table[name]) for name in ("input_ids", "labels"))
    if not (starts == label_starts).all():
        return "rows with another number of labels than tokens"
    for start, end in itertools.pairwise(starts):
        digest.update(int(end - start).to_bytes(8, "little"))
        digest.update(tokens[start:end].tobytes())
        digest.update(labels[start:end].tobytes())
    return digest.hexdigest()


def _flat(column: "pyarrow.ChunkedArray") -> tuple["np.ndarray", "np.ndarray"]:
    """All values of a column of lists, little-endian int32, and where each list starts; one more start for the end."""
    import numpy as np

    lengths = np.concatenate([[0], *(chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in column.chunks)])
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(values).astype("<i4", copy=False), lengths.cumsum()


def _read(path: Path) -> "pyarrow.Table":
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, columns=["row", "input_ids", "labels"], use_threads=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run prepare_data") from None
    except (OSError, pyarrow.ArrowException, KeyError) as error:
        raise UserError(
            f"{path} cannot be read as a tokenised data set ({first_line(error)}): run prepare_data again"
        ) from None
    if table.num_rows == 0:
        raise UserError(f"{path} holds no row: look at the data card's reasons for dropping rows")
    return table
