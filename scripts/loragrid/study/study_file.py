"""The study file: one complete YAML file, checked against a closed schema."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.adopted import Adopted, adopted_subjects
from loragrid.study.checks.likely_slips import likely_slips
from loragrid.study.checks.validation import check_complete, check_written
from loragrid.study.completion import complete
from loragrid.study.file_paths import resolve_paths
from loragrid.study.grid import Cell, expand, resolved
from loragrid.study.reading.yaml_file import read_yaml
from loragrid.study.schema import one_of, read_schema, study_error
from loragrid.study.sections import (
    AS_TRAINED,
    AdoptedAdapter,
    Compare,
    DataSet,
    Grid,
    Heldout,
    ModelEntry,
    Plan,
    Scoring,
    Training,
    Tune,
)
from loragrid.study.settings import Settings


@dataclass(frozen=True)
class Study:
    """A validated study: `name` is the file's stem, `yaml` its complete content, paths absolute.

    `written` holds what the file itself says. Identities hash `yaml`; all other code reads the
    typed sections.
    """

    name: str
    path: Path
    yaml: dict[str, Any]
    written: dict[str, Any]

    @property
    def title(self) -> str:
        """The study's question, one line."""
        return self.yaml["title"]

    @cached_property
    def likely_slips(self) -> list[str]:
        """A line for each key that rarely means what its author wanted."""
        return likely_slips(self.written, self.yaml, self.path)

    @property
    def left_out(self) -> str:
        """What the study leaves out and why, or an empty string."""
        return self.yaml["left_out"]

    @property
    def backup(self) -> str | None:
        """The place for copies of the results, or None; no property of the results."""
        return self.yaml["backup"]

    def with_backup(self, place: str | None) -> "Study":
        """The study with another place for copies, as a command line gives it; None or an empty text keep its own."""
        return replace(self, yaml=self.yaml | {"backup": place}) if place else self

    @cached_property
    def data(self) -> Mapping[str, DataSet]:
        """The data sets by their keys."""
        return {key: DataSet.read(entry) for key, entry in self.yaml["data"].items()}

    @cached_property
    def heldout(self) -> Heldout:
        """The held-out rows."""
        return Heldout.read(self.yaml["heldout"])

    @cached_property
    def models(self) -> Mapping[str, ModelEntry]:
        """The base models by their keys; `base_entry` gives them a precision."""
        return {key: ModelEntry.read(entry) for key, entry in self.yaml["models"].items()}

    @cached_property
    def adopt(self) -> Mapping[str, AdoptedAdapter]:
        """Adapters that were trained elsewhere, by their keys."""
        return {key: AdoptedAdapter.read(entry) for key, entry in self.yaml["adopt"].items()}

    @cached_property
    def base_case(self) -> Settings:
        """The setting that every other run departs from."""
        return Settings.read(resolved(self.yaml["base_case"]))

    @cached_property
    def grid(self) -> Grid:
        """The runs beside the base case."""
        return Grid.read(self.yaml["grid"])

    @cached_property
    def training(self) -> Training:
        """How runs are trained, without effect on their result."""
        return Training.read(self.yaml["training"])

    @cached_property
    def scoring(self) -> Scoring:
        """Tasks and settings of scoring."""
        return Scoring.read(self.yaml["scoring"])

    @cached_property
    def compare(self) -> Compare:
        """Statistical settings."""
        return Compare.read(self.yaml["compare"])

    @cached_property
    def tune(self) -> Tune | None:
        """The hyperparameter search; None for a study without one."""
        settings = self.yaml["tune"]
        return None if settings is None else Tune.read(settings)

    @cached_property
    def plan(self) -> Plan:
        """Assumptions of the compute plan."""
        return Plan.read(self.yaml["plan"])

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The training runs in the order in which they are trained, each once."""
        return expand(self.yaml)

    @cached_property
    def adopted(self) -> dict[str, Adopted]:
        """Subject id of each adopted adapter → the adapter."""
        return adopted_subjects(self.yaml)

    @cached_property
    def data_sets(self) -> dict[str, Cell]:
        """Id of each tokenised data set that the study needs → the first cell that needs it.

        The cell is a run, unless only adopted adapters need the set.
        """
        found: dict[str, Cell] = {}
        for cell in (*self.cells, *self._adopting_cells()):
            found.setdefault(cell.data, cell)
        return found

    @cached_property
    def bases(self) -> dict[str, Cell]:
        """Id of each untrained base that runs are compared with → the first of these runs.

        For a base that only adopted adapters have, the cell is no run.
        """
        found: dict[str, Cell] = {}
        for cell in (*self.cells, *self._adopting_cells()):
            found.setdefault(cell.base, cell)
        return found

    def _adopting_cells(self) -> list[Cell]:
        """The base case on each base that only adopted adapters have."""
        known = {cell.base for cell in self.cells}
        return [adopted.cell for adopted in self.adopted.values() if adopted.cell.base not in known]

    def base_entry(self, cell: Cell) -> ModelEntry:
        """The base of a run, in the run's precision."""
        return replace(self.models[cell.model], precision=cell.settings.precision)

    def scored_entry(self, cell: Cell) -> ModelEntry:
        """The base of a run, in the precision that it is scored in."""
        entry, precision = self.base_entry(cell), self.scoring.precision
        return entry if precision == AS_TRAINED else replace(entry, precision=precision)

    def cell(self, run: str) -> Cell:
        """The cell with this run id; a `UserError` if the study file does not hold it."""
        for cell in self.cells:
            if cell.run == run:
                return cell
        problem = f"no run has this id ({run}); the file may have changed since the id was made"
        raise study_error(self.path, None, problem, fix="run snakemake again")


def load_study(name_or_path: str) -> Study:
    """The study of that name in config/studies, or at that path; a mistake is a `UserError`."""
    path = _find_file(str(name_or_path))
    # The stem becomes the folder results/{stem}, and Snakemake's wildcards and the shell see its
    # name.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", path.stem):
        problem = f"a file name that cannot be the name of a results folder ({path.stem!r})"
        raise study_error(path, None, problem, fix="use only letters, digits, '.', '_' and '-'")
    written = read_yaml(path, read_schema())
    check_written(written, path)
    settings = complete(written)
    check_complete(settings, path)
    resolve_paths(settings, path)
    return Study(name=path.stem, path=path, yaml=settings, written=written)


def _find_file(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        for folder in (Path.cwd(), ROOT):
            with suppress(OSError):
                if (folder / name).is_file():
                    return (folder / name).resolve()
        raise UserError(f"{name}: study file not found. Fix: check the path.")
    studies = ROOT / "config" / "studies"
    path = studies / f"{name}.yaml"
    # The pattern keeps a name such as ../../etc/passwd from leaving the folder.
    if not re.fullmatch(r"[\w.-]{1,200}", name) or not path.is_file():
        known = sorted(file.stem for file in studies.glob("*.yaml"))
        raise UserError(f"study {name[:200]!r}: unknown. Fix: {one_of(known)}, or give the path of a .yaml file.")
    return path
