"""Data cards and records of a study that replace a plan's assumptions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, print_line
from loragrid.models.flops import forward_per_token, training_per_token
from loragrid.models.shape import Shape
from loragrid.models.trained_weights import Trainable
from loragrid.planning.gpu_cards import PlannedDevice
from loragrid.records.record import RunRecord, ScoreRecord, find_record
from loragrid.runtime.atomic_files import read_json
from loragrid.study.grid import Cell
from loragrid.study.settings import Settings
from loragrid.study.study_file import Study

# Settings that runs must share to be equally fast on one base, and to take the same memory.
SPEED_SETTINGS = ("method", "precision", "compute_dtype", "backend", "batch")
MEMORY_SETTINGS = (
    *SPEED_SETTINGS,
    "rank",
    "target_modules",
    "optimizer",
    "max_length_tokens",
    "packing",
)
# Records of other studies that a plan reads, the newest ones.
MOST_EARLIER = 200


@dataclass(frozen=True, kw_only=True)
class DataSize:
    """Training rows (None if unknown) and tokens per row; `counted`: a data card has counted them."""

    rows: int | None
    row_tokens: float
    counted: bool


@dataclass(frozen=True)
class Measurements:
    """Records by run and by subject, made on the kind of device that the plan is for.

    `earlier`: runs of other studies beside this one, the newest first.
    """

    runs: dict[str, RunRecord]
    scores: dict[str, ScoreRecord]
    earlier: tuple[RunRecord, ...] = ()


def data_size(study: Study, cell: Cell, results: Path) -> DataSize:
    """The size of a run's data from their card or, before there is one, from the study file.

    Raises `UserError` for a file that is no data card.
    """
    settings = cell.settings
    card_file = results / "data" / cell.data / "card.json"
    if card_file.is_file():
        rows, tokens = _counted(card_file)
        size = DataSize(rows=rows, row_tokens=tokens / rows, counted=True)
    else:
        size = DataSize(rows=_planned_rows(study, settings.data), row_tokens=study.plan.row_tokens, counted=False)
    if settings.packing:
        return _packed(size, settings.max_length_tokens)
    return size


def _counted(card_file: Path) -> tuple[int, int]:
    """Training rows and their tokens, as a data card counts them."""
    card = read_json(card_file)
    try:
        return card["split"]["train_rows"], card["tokens"]["train"]
    except (KeyError, TypeError):
        raise UserError(f"{card_file}: not a data card. Fix: delete the file and run prepare_data again.") from None


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
    return Measurements(runs, scores, _earlier_runs(results, device))


def _earlier_runs(results: Path, device: PlannedDevice) -> tuple[RunRecord, ...]:
    """Finished runs of the studies beside this one on such a device; a broken record is left out."""
    files = [file for file in results.parent.glob("*/train/*/record.json") if results not in file.parents]
    files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    runs = []
    for file in files[:MOST_EARLIER]:
        run, _ = find_record(file, RunRecord)
        if run is not None and run.status == "finished" and run.train_seconds > 0 and _is_on(device, run.device):
            runs.append(run)
    return tuple(runs)


def earlier_like(
    settings: Settings, shape: Shape, earlier: tuple[RunRecord, ...], names: tuple[str, ...]
) -> list[RunRecord]:
    """Earlier runs on a base of that shape whose settings of these names are the same."""
    found = []
    for run in earlier:
        base_parameters = run.total_parameters - run.trainable_parameters
        wanted = {name: _plain(getattr(settings, name)) for name in names}
        if base_parameters == shape.parameters() and wanted.items() <= _listed(run.settings).items():
            found.append(run)
    return found


def _listed(settings: dict[str, Any]) -> dict[str, Any]:
    """A record's settings without those that hold sections, which cannot be compared here."""
    plain = {name: _plain(value) for name, value in settings.items()}
    return {name: value for name, value in plain.items() if not isinstance(value, dict)}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def earlier_rate(
    settings: Settings, shape: Shape, earlier: tuple[RunRecord, ...], *, checkpointing: bool
) -> tuple[float, int] | None:
    """(TFLOPS, number of runs) of earlier runs alike, or None; held-out passes are counted as in the plan."""
    runs = earlier_like(settings, shape, earlier, SPEED_SETTINGS)
    if not runs:
        return None
    flops = 0.0
    for run in runs:
        trainable = Trainable(
            method=run.method,
            rank=run.settings.get("rank"),
            target_modules=run.settings.get("target_modules"),
        )
        row_tokens = run.tokens / run.samples
        again = checkpointing if run.checkpointing is None else run.checkpointing
        per_token = training_per_token(shape, trainable, row_tokens=row_tokens, checkpointing=again)
        measurements = 1 + min(run.settings.get("evaluations", 0), run.steps)
        heldout_tokens = measurements * run.heldout_rows * row_tokens
        flops += run.tokens * sum(per_token.values()) + heldout_tokens * forward_per_token(shape, row_tokens=row_tokens)
    return flops / sum(run.train_seconds * run.gpus for run in runs) / 1e12, len(runs)


def earlier_peak_mib(settings: Settings, shape: Shape, earlier: tuple[RunRecord, ...]) -> float | None:
    """Largest GPU memory that earlier runs with the same settings took, as torch counts it; None without any."""
    peaks = [run.peak_vram_mib for run in earlier_like(settings, shape, earlier, MEMORY_SETTINGS)]
    return max((peak for peak in peaks if peak), default=None)


def _read(path: Path, kind: type) -> RunRecord | ScoreRecord | None:
    record, problem = find_record(path, kind)
    if problem is not None:
        print_line(f"plan: record left out: {problem}")
    return record


def _is_on(device: PlannedDevice, recorded: dict) -> bool:
    return recorded.get("kind") == device.kind and recorded.get("name") in device.names
