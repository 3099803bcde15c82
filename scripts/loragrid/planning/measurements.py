"""What this machine has measured already: data cards, finished runs and scored subjects of the study, as a plan uses them."""

from dataclasses import dataclass
from pathlib import Path

from loragrid.errors import UserError, print_line
from loragrid.planning.gpu_cards import Device
from loragrid.records.record import RunRecord, ScoreRecord, read_record
from loragrid.runtime.atomic_files import read_json
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study


@dataclass(frozen=True, kw_only=True)
class DataSize:
    """Training rows (None if not known) and tokens of a mean row, and whether a data card counted them."""

    rows: int | None
    row_tokens: float
    counted: bool


@dataclass(frozen=True)
class Measured:
    """Records of runs and subjects made on the kind of device that is planned for."""

    runs: dict[str, RunRecord]
    scores: dict[str, ScoreRecord]


def data_size(study: Study, data: str, results: Path) -> DataSize:
    """From the data card if the data are prepared, else from the study file's `plan`."""
    settings, plan = study.data, study.plan
    file = results / "data" / data / "card.json"
    if file.is_file():
        card = read_json(file)
        rows = card["split"]["train_rows"]
        size = DataSize(rows=rows, row_tokens=card["tokens"]["train"] / rows, counted=True)
    else:
        rows = plan.rows
        if rows is not None and settings.max_rows is not None:
            rows = min(rows, settings.max_rows - settings.heldout_rows)
        size = DataSize(rows=rows, row_tokens=plan.row_tokens, counted=False)
    if not study.training.packing:
        return size
    # Packed rows are as good as full.
    full, rows = settings.max_length_tokens, size.rows
    packed = None if rows is None else max(1, round(rows * size.row_tokens / full))
    return DataSize(rows=packed, row_tokens=full, counted=size.counted)


def read_measured(study: Study, cells: tuple[Cell, ...], results: Path, device: Device) -> Measured:
    """The study's records that were made on such a device; one that cannot be read is told and left out."""
    runs, scores = {}, {}
    for name in {name for cell in cells for name in (cell.run, cell.base)}:
        run = _read(results / "train" / name / "record.json", RunRecord)
        if run is not None and _same(run.device, device) and run.train_seconds > 0:
            runs[name] = run
        score = _read(results / "score" / name / "score.json", ScoreRecord)
        if score is not None and _same(score.device, device) and score.status == "scored":
            scores[name] = score
    return Measured(runs, scores)


def _read(path: Path, kind: type) -> RunRecord | ScoreRecord | None:
    if not path.is_file():
        return None
    try:
        return read_record(path, kind)
    except UserError as error:
        print_line(f"plan: left out: {error}")
        return None


def _same(recorded: dict, device: Device) -> bool:
    return recorded.get("kind") == device.kind and recorded.get("name") in device.names
