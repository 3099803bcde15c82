"""Checks of all runs of a study against the rows that they are trained on, as early as those are known.

This module only refuses and warns, so `loragrid.runtime.code_digest` leaves it out of the code of the stages.
"""

import json
from dataclasses import replace
from pathlib import Path

from loragrid.errors import UserError
from loragrid.models.find_shape import stated_context
from loragrid.runtime.atomic_files import read_json
from loragrid.study.checks.run_length import (
    TrainingRows,
    check_batch,
    check_length,
    planned_updates,
    warmup_warning,
)
from loragrid.study.grid import Cell
from loragrid.study.sections import DataSet
from loragrid.study.study_file import Study

ROW_PER_LINE = (".jsonl", ".ndjson", ".csv", ".tsv")  # files without more rows than lines
LARGEST_COUNTED_BYTES = 64 * 2**20  # this runs on every call of Snakemake
LARGEST_PARSED_BYTES = 8 * 2**20
ENOUGH_HELDOUT = 0.9  # of the held-out rows that are asked for; whole groups may give no more


def check_runs(study: Study, results: Path) -> None:
    """Raise `UserError` for rows longer than a base's context, too many held-out rows and a batch larger than the
    training rows, where these are known before any job.

    The prepare_data stage knows every base and the rows of every set and checks again, and training those that it has
    packed.
    """
    # All models are measured on the held-out rows, which are as long as the base case's.
    lengths = {(cell.model, cell.settings.max_length_tokens) for cell in study.cells}
    lengths |= {(model, study.base_case.max_length_tokens) for model, _ in lengths}
    for model, length in sorted(lengths):
        check_length(length, stated_context(study.models[model]), model)
    _check_heldout(study)
    for data_id, cell in study.data_sets.items():
        check_batches(study, data_id, _known_rows(study, results, data_id, cell).count)


def _check_heldout(study: Study) -> None:
    """Refuse to hold out more than half of the rows, as the split does, where a bound on the rows is known."""
    rows = _source_rows(study.data[study.heldout.set])
    if rows is not None and rows < 2:
        raise UserError(
            f"heldout.set: data.{study.heldout.set} has {rows} row{'s' if rows == 0 else ''}; a split needs at least two. "
            "Fix: give more rows."
        )
    if rows is not None and study.heldout.rows > rows // 2:
        raise UserError(
            f"heldout.rows: {study.heldout.rows} is more than half of the {rows} rows of data.{study.heldout.set}. "
            f"Fix: lower it to {rows // 2} or less, or give more rows."
        )


def check_batches(study: Study, data_id: str, rows: int | None) -> None:
    """`check_batch` of all runs on a data set, and of the search's trials if it is the base case's."""
    # Thousands of cells have few batches.
    found = {cell.settings.batch: cell.settings for cell in study.cells if cell.data == data_id}
    for settings in found.values():
        check_batch(settings, rows)
    if study.tune is not None and study.cells[0].data == data_id:
        for batch in study.tune.spaces[study.tune.space].get("batch", {}).get("choices", []):
            check_batch(replace(study.base_case, batch=tuple(batch)), rows)


def run_warnings(study: Study, results: Path) -> list[str]:
    """A line per length of warm-up that lasts as long as its run, where the run's updates are known before any job."""
    rows = {data: _known_rows(study, results, data, cell) for data, cell in study.data_sets.items()}
    found = {}
    for cell in study.cells:
        warning = warmup_warning(cell.settings, planned_updates(cell.settings, rows[cell.data]))
        if warning is not None:
            found.setdefault(warning, cell.run)
    return [f"{run}: {warning}" for warning, run in found.items()]


def _known_rows(study: Study, results: Path, data_id: str, cell: Cell) -> TrainingRows:
    """The training rows of a data set, by its card or, before there is one, at most."""
    card = results / "data" / data_id / "card.json"
    rows = rows_of_card(read_json(card)) if card.is_file() else None
    return rows or _at_most(study, cell.settings.data)


def rows_of_card(card: dict) -> TrainingRows | None:
    """The training rows of a data card; None for a card that does not state them."""
    try:
        count, tokens = card["split"]["train_rows"], card["tokens"]["train"]
        return TrainingRows(count, tokens / count)
    except (KeyError, TypeError, ZeroDivisionError):
        return None


def _at_most(study: Study, name: str) -> TrainingRows:
    """The most rows that a data set can have to train on: the study's own limit, or the lines of its file."""
    entry, rows = study.data[name], _source_rows(study.data[name])
    counts = [] if entry.rows is None else [entry.rows]
    if rows is not None:
        held_out = int(ENOUGH_HELDOUT * study.heldout.rows) if study.heldout.set == name else 0
        counts.append(max(0, rows - held_out))
    return TrainingRows(min(counts, default=None))


def _source_rows(entry: DataSet) -> int | None:
    """The most rows that the source of a data set can have; None if only the prepare_data stage will know."""
    source = entry.source
    if source is None or source.path is None:
        return None if source is None else source.rows
    path = Path(source.path)
    try:
        return _file_rows(path, path.stat().st_size) if path.is_file() else None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Fix: check the file.") from None


def _file_rows(path: Path, size: int) -> int | None:
    kind = path.suffix.lower()
    if kind in ROW_PER_LINE and size <= LARGEST_COUNTED_BYTES:
        content = path.read_bytes()
        # Old Macs ended lines with a carriage return alone.
        return max(content.count(end) + (not content.endswith(end)) for end in (b"\n", b"\r"))
    if kind == ".json" and size <= LARGEST_PARSED_BYTES:
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return None  # prepare_data names the mistake
        return len(content) if isinstance(content, list) else None
    if kind == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_metadata(path).num_rows
        except pyarrow.ArrowException:
            return None
    return None
