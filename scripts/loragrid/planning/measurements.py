"""Data cards and records of a study that replace a plan's assumptions."""

from dataclasses import dataclass
from pathlib import Path

from loragrid.errors import print_line
from loragrid.planning.gpu_cards import PlannedDevice
from loragrid.records.record import RunRecord, ScoreRecord, find_record
from loragrid.runtime.atomic_files import read_json
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study


@dataclass(frozen=True, kw_only=True)
class DataSize:
    """Training rows (None if unknown) and tokens per row; `counted`: a data card has counted them."""

    rows: int | None
    row_tokens: float
    counted: bool


@dataclass(frozen=True)
class Measurements:
    """Records by run and by subject, made on the kind of device that the plan is for."""

    runs: dict[str, RunRecord]
    scores: dict[str, ScoreRecord]


def data_size(study: Study, cell: Cell, results: Path) -> DataSize:
    """The size of a run's data from their card or, before there is one, from the study file."""
    settings = cell.settings
    card_file = results / "data" / cell.data / "card.json"
    if card_file.is_file():
        card = read_json(card_file)
        rows = card["split"]["train_rows"]
        size = DataSize(rows=rows, row_tokens=card["tokens"]["train"] / rows, counted=True)
    else:
        size = DataSize(rows=_planned_rows(study, settings.data), row_tokens=study.plan.row_tokens, counted=False)
    if settings.packing:
        return _packed(size, settings.max_length_tokens)
    return size


def _planned_rows(study: Study, key: str) -> int | None:
    """Training rows of a data set that is not prepared yet; None if unknown."""
    known = study.plan.rows
    source, limit = study.data[key].source, study.data[key].rows
    if known is None and source is not None and source.rows is not None:
        # A generator states its rows, of which duplicates may be dropped.
        known = max(1, source.rows - study.heldout.rows)
    if known is None or limit is None:
        # Few sources have fewer rows than a study asks for.
        return known or limit
    return min(known, limit)


def _packed(size: DataSize, max_length_tokens: int) -> DataSize:
    """The size after packing, which fills rows almost completely."""
    rows = size.rows
    if rows is not None:
        rows = max(1, round(rows * size.row_tokens / max_length_tokens))
    return DataSize(rows=rows, row_tokens=max_length_tokens, counted=size.counted)


def read_measurements(
    study: Study,
    cells: tuple[Cell, ...],
    results: Path,
    device: PlannedDevice,
) -> Measurements:
    """The study's records made on such a device; unreadable ones are reported and left out."""
    runs, scores = {}, {}
    # In the order of the cells, so that sums over records are the same in every process.
    names = [name for cell in cells for name in (cell.run, cell.base)]
    for name in dict.fromkeys([*names, *study.bases, *study.adopted]):
        run = _read(results / "train" / name / "record.json", RunRecord)
        if run is not None and _is_on(device, run.device) and run.train_seconds > 0:
            runs[name] = run
        score = _read(results / "score" / name / "score.json", ScoreRecord)
        if score is not None and _is_on(device, score.device) and score.status == "scored":
            scores[name] = score
    return Measurements(runs, scores)


def _read(path: Path, kind: type) -> RunRecord | ScoreRecord | None:
    record, problem = find_record(path, kind)
    if problem is not None:
        print_line(f"plan: record left out: {problem}")
    return record


def _is_on(device: PlannedDevice, recorded: dict) -> bool:
    return recorded.get("kind") == device.kind and recorded.get("name") in device.names
