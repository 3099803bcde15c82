"""Reader of a tokenised data set; refuses rows that the data card does not describe."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, first_line
from loragrid.records.seal import check_sealed
from loragrid.runtime.atomic_files import read_json

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from datasets import Dataset


GROUPS = "row_groups.parquet"


@dataclass(frozen=True)
class TrainingData:
    """Training and held-out rows (columns row, input_ids, labels; -100: no loss) and their card."""

    train: "Dataset"
    heldout: "Dataset"
    card: dict[str, Any]


def load_training_data(folder: Path) -> TrainingData:
    """Read `train.parquet`, `heldout.parquet` and `card.json` of a data set's folder.

    Raises `UserError` if a file is missing, unreadable or changed, or if its rows are not those of the card.
    """
    from datasets import Dataset

    card_file = folder / "card.json"
    check_sealed(folder)
    card = read_json(card_file)
    if not isinstance(card, dict):
        raise UserError(f"{card_file}: not a data card. Fix: delete the file and run prepare_data again.")
    tables = {}
    for name, key in (("train", "fingerprint"), ("heldout", "heldout_fingerprint")):
        path = folder / f"{name}.parquet"
        tables[name] = _read_table(path)
        if rows_sha256(tables[name]) != card.get(key):
            raise UserError(
                f"{path}: its rows are not those that {card_file} describes ({key} differs). "
                "Fix: run prepare_data again."
            )
    train, heldout = Dataset(tables["train"]), Dataset(tables["heldout"])
    return TrainingData(train=train, heldout=heldout, card=card)


def write_groups(path: Path, rows: Sequence[int], groups: Sequence[int]) -> None:
    """Write the group of each training row (columns row and group, int64), for `read_groups`."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"row": rows, "group": groups}), path)


def read_groups(folder: Path) -> dict[int, int]:
    """Number of a training row → its group: rows that share answers or prompts have the same one.

    Raises `UserError` if the file is missing or unreadable.
    """
    check_sealed(folder / GROUPS)
    table = _read_parquet(folder / GROUPS, ["row", "group"])
    return dict(zip(table["row"].to_pylist(), table["group"].to_pylist(), strict=True))


def rows_sha256(table: "pyarrow.Table") -> str:
    """SHA-256 over the rows' tokens and labels in order, independent of how the file was written.

    Per row: the number of tokens (int64), input_ids and labels (int32), little-endian.
    """
    digest = hashlib.sha256()
    tokens, starts = _flatten(table["input_ids"])
    labels, label_starts = _flatten(table["labels"])
    if not (starts == label_starts).all():
        return "rows with another number of labels than tokens"
    for start, end in itertools.pairwise(starts):
        digest.update(int(end - start).to_bytes(8, "little"))
        digest.update(tokens[start:end].tobytes())
        digest.update(labels[start:end].tobytes())
    return digest.hexdigest()


def _flatten(column: "pyarrow.ChunkedArray") -> tuple["np.ndarray", "np.ndarray"]:
    """Values of a column of lists (little-endian int32), and the lists' starts and last end."""
    import numpy as np

    # Lengths instead of offsets, because the offsets of a sliced table do not begin at 0.
    lengths = [chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    starts = np.concatenate([[0], *lengths]).cumsum()
    return np.concatenate(values).astype("<i4", copy=False), starts


def _read_table(path: Path) -> "pyarrow.Table":
    table = _read_parquet(path, ["row", "input_ids", "labels"])
    if table.num_rows == 0:
        raise UserError(f"{path}: the file has no rows. Fix: check the data card's reasons for dropping rows.")
    return table


def _read_parquet(path: Path, columns: list[str]) -> "pyarrow.Table":
    import pyarrow
    import pyarrow.parquet

    try:
        # One thread: a job uses the cores that its rule declares.
        return pyarrow.parquet.read_table(path, columns=columns, use_threads=False).select(columns)
    except FileNotFoundError:
        raise UserError(f"{path}: the file is missing. Fix: run prepare_data.") from None
    except (OSError, pyarrow.ArrowException, KeyError) as error:
        raise UserError(
            f"{path}: not readable as a tokenised data set ({first_line(error)}). Fix: run prepare_data again."
        ) from None
