"""TensorBoard's event files, read by its own package, which is optional: rows of steps."""

import re
import struct
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loragrid.external.runs import ExternalResults
from loragrid.formatting import plural, visible

NAME = "tfevents"  # in the name of every event file
PACKAGE = "tensorboard"
MISSING = f"TensorBoard’s event files need {PACKAGE}, which is not installed"
INSTALL = f"pip install {PACKAGE}, or export the curves as CSV"
NO_CURVE = "no scalar: an event file’s curves are read, no images, texts or histograms"
# A Trainer writes them to runs/MOMENT_MACHINE of its output folder, which names the run.
LOGS, MOMENT = "runs", re.compile(r"[A-Z][a-z]{2}\d\d_\d\d-\d\d-\d\d_.+")
# A record: its length, a checksum of it, the event, a checksum of that.
LENGTH, CHECKSUM_BYTES = struct.Struct("<Q"), 4


def is_event_file(path: Path) -> bool:
    """Whether a file is one of TensorBoard's, by its name."""
    return NAME in path.name


def run_of_events(path: Path, source: Path, folders: Sequence[str]) -> str:
    """The run of an event file in these folders below the source."""
    named = [folder for folder in folders if folder != LOGS and not (LOGS in folders and MOMENT.fullmatch(folder))]
    if named:
        return named[0]
    return path.parent.name if path == source else source.name


def event_rows(path: Path, results: ExternalResults) -> list[dict[str, Any]]:
    """The scalars of an event file, a row per step; what else it holds is named in `results`.

    Raises ValueError without the package that reads it.
    """
    if find_spec(PACKAGE) is None:
        raise ValueError(MISSING)
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader, RawEventFileLoader
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR
    from tensorboard.util.tensor_util import make_ndarray

    rows: dict[int, dict[str, Any]] = {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if value.metadata.data_class != DATA_CLASS_SCALAR:
                results.columns.setdefault(visible(value.tag, 80), NO_CURVE)
                continue
            (number,) = make_ndarray(value.tensor).reshape(-1)
            # The shortest text of a float32: 0.0002 and not 0.00019999999494757503.
            rows.setdefault(event.step, {"step": event.step})[value.tag] = float(str(number))
    # The loader stops at a damaged record without a word.
    written, read = _records(path), sum(1 for _ in RawEventFileLoader(str(path)).Load())
    if read < written:
        reason = f"damaged after {plural(read, 'record')} of {written}: the rest is not used"
        results.unused.append((visible(path.name, 200), reason))
    return list(rows.values())


def _records(path: Path) -> int:
    """The records of an event file by their lengths; one that is not complete counts."""
    size, at, records = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while at < size:
            head = file.read(LENGTH.size)
            length = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
            at += LENGTH.size + CHECKSUM_BYTES + length + CHECKSUM_BYTES
            file.seek(min(at, size))
            records += 1
    return records
