"""The run that is exported: its record, its weights and its base, checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.comparing.trade_off import fit_to_ship
from loragrid.errors import UserError
from loragrid.models.adapter_files import MODEL, trained_folder
from loragrid.models.model_files import prepared_entry
from loragrid.records.record import RunRecord, ScoreRecord, find_record, read_record
from loragrid.records.seal import check_sealed
from loragrid.runtime.atomic_files import read_json
from loragrid.scoring.subjects import check_weights
from loragrid.study.grid import Cell
from loragrid.study.search.winner import cells_with_winner
from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import Study

COMPARISON = Path("compare", "compare.json")


@dataclass(frozen=True, kw_only=True)
class ExportedRun:
    """A finished run of a study and what it was trained from.

    `entry`: its base, pinned to the commit of the data's preparation, in the precision of training; `trained`: folder
    of the adapter or of the whole model; `data`: folder of the prepared rows; `score` is None before the run is scored.
    """

    study: Study
    cell: Cell
    record: RunRecord
    score: ScoreRecord | None
    entry: ModelEntry
    trained: Path
    data: Path
    results: Path

    @property
    def is_whole(self) -> bool:
        """Whether all weights were trained, so that there is no adapter."""
        return self.trained.name == MODEL

    @property
    def base_name(self) -> str:
        """The base as readers elsewhere know it: the hub's id, or the name of a local folder without its path."""
        source = self.record.base_source
        return source if self.record.base_commit is not None else Path(source).name

    @property
    def name(self) -> str:
        """The run's id."""
        return self.cell.run


def find_run(study: Study, results: Path, name: str) -> ExportedRun:
    """The run called `name`; raises `UserError` if it is not finished or has nothing to export."""
    cell = next((cell for cell in cells_with_winner(study, results) if cell.run == name), None)
    if cell is None:
        raise UserError(f"run: not a run of {study.name} ({name}). Fix: give a folder's name of {results / 'train'}.")
    folder = results / "train" / name
    if not (folder / "record.json").is_file():
        raise UserError(f"{folder}: no finished run. Fix: run the study first.")
    record = read_record(folder / "record.json", RunRecord)
    if record.status != "finished":
        raise UserError(f"run {name}: it diverged and left no weights ({record.reason}). Fix: export another run.")
    if record.method == "none":
        raise UserError(f"run {name}: nothing was trained (method none). Fix: use its base, {record.base_source}.")
    trained = trained_folder(folder)
    check_weights(trained, record)
    data = results / "data" / cell.data
    score, _ = find_record(results / "score" / name / "score.json", ScoreRecord)
    return ExportedRun(
        study=study,
        cell=cell,
        record=record,
        score=score,
        entry=prepared_entry(study.base_entry(cell), data),
        trained=trained,
        data=data,
        results=results,
    )


def run_to_take(study: Study, results: Path) -> str:
    """The run that the page names as the one to take; raises `UserError` if it names none."""
    check_sealed(results / COMPARISON.parent)
    compared: dict[str, Any] = read_json(results / COMPARISON)
    fit = fit_to_ship(compared["trade_offs"], study.adopted)
    if not fit:
        raise UserError(
            "run: the page names none to take, for no setting is shown to gain and to keep what its "
            "untrained base could do. Fix: choose one yourself with --config run=RUN."
        )
    return fit[0]["run"]
