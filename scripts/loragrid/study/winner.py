"""A search's winner as an ordinary study of one run, and as a cell of the study that was searched."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from loragrid.runtime.atomic_files import read_json, write_text
from loragrid.study.grid import Cell
from loragrid.study.search_point import at_point, cell_at, settings_sha256
from loragrid.study.study_file import Study

SCHEMA = 2  # of tune.json
HEAD = """# The best setting that the search of study {name} found, as a complete study of one run at the grid's full budget.
# Made by the tune stage; to keep it, copy it to config/studies/.
"""


class _Dumper(yaml.SafeDumper):
    """Writes a value out each time it comes up, instead of a reference to where it came first."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_winner(study: Study, point: dict[str, Any], out: Path) -> tuple[Path, str]:
    """Write `out/winner/{study}.yaml`, a study file that train and score take as they take the study's own; its path and run id.

    It bears the study's name, so that the run's records do.
    """
    path = out / "winner" / f"{study.name}.yaml"
    text = yaml.dump(at_point(study, point).yaml, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    write_text(path, HEAD.format(name=study.name) + text)
    return path, cell_at(study, point).run


def read_search(study: Study, results: Path) -> dict[str, Any] | None:
    """tune.json of the study's search; None if it is not there, of another form, or made under other settings of the search."""
    path = results / "tune" / "tune.json"
    if study.tune is None or not path.is_file():
        return None
    found = read_json(path)
    right = found.get("schema") == SCHEMA and found.get("settings_sha256") == settings_sha256(study)
    return found if right else None


def cells_with_winner(study: Study, results: Path) -> tuple[Cell, ...]:
    """The grid's cells and, last, the search's winner where the study has one."""
    winner = winner_cell(study, results)
    return study.cells if winner is None else (*study.cells, winner)


def winner_cell(study: Study, results: Path) -> Cell | None:
    """The winner as a further cell, where the search is part of the study and done; None too if the grid has that very run."""
    if study.tune is None or not study.tune.enabled:
        return None
    found = read_search(study, results)
    if found is None or found["best"] is None:
        return None
    cell = cell_at(study, found["best"]["point"])
    if cell.run in {other.run for other in study.cells}:
        return None
    return dataclasses.replace(cell, departs={"search": "winner"})
