"""A search's winner, as a study of one run and as a further cell of the study that was searched."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from loragrid.runtime.atomic_files import read_json, write_text
from loragrid.study.grid import SEARCHED, Cell
from loragrid.study.search.search_point import at_point, cell_at, settings_sha256
from loragrid.study.study_file import Study

SCHEMA = 5  # version of tune.json
HEAD = """# The best setting of the search of study {name}: a complete study of one run at the grid's full budget.
# Written by the tune stage. Copy it to config/studies/ to keep it.
"""


class _Dumper(yaml.SafeDumper):
    """Writes a repeated value out in full: PyYAML would write an anchor and references to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_winner(study: Study, point: dict[str, Any], out: Path) -> tuple[Path, str]:
    """Write the winner's study file, `out/winner/{study}.yaml`, and return its path and its run id.

    Train and score take this file as they take the study's own. It has the study's name, and so do
    the run's records.
    """
    path = out / "winner" / f"{study.name}.yaml"
    text = yaml.dump(at_point(study, point).yaml, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    write_text(path, HEAD.format(name=study.name) + text)
    return path, cell_at(study, point).run


def read_search(study: Study, results: Path) -> dict[str, Any] | None:
    """The content of the study's tune.json; None if it is absent or outdated.

    Outdated means another schema, or other settings of the search.
    """
    path = results / "tune" / "tune.json"
    if study.tune is None or not path.is_file():
        return None
    found = read_json(path)
    # A winner of other settings would be trained and shown as the answer to the present ones.
    current = found.get("schema") == SCHEMA and found.get("settings_sha256") == settings_sha256(study)
    return found if current else None


def cells_with_winner(study: Study, results: Path) -> tuple[Cell, ...]:
    """The grid's cells, followed by the search's winner if there is one."""
    winner = winner_cell(study, results)
    return study.cells if winner is None else (*study.cells, winner)


def winner_cell(study: Study, results: Path) -> Cell | None:
    """The winner as a further cell, or None.

    It is None unless the search is enabled and finished, and if the grid has the same settings.
    """
    if study.tune is None or not study.tune.enabled:
        return None
    found = read_search(study, results)
    if found is None or found["best"] is None:
        return None
    cell = cell_at(study, found["best"]["point"])
    # The grid has this run already: a second cell would be trained and counted twice.
    if any(cell.identity == other.identity for other in study.cells):
        return None
    return dataclasses.replace(cell, departs={SEARCHED: "winner"})
