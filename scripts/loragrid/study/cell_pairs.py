"""Which runs share a setting, and which differ on one axis alone: the comparisons that a grid allows.

An axis is a setting on which some run departs from the base case. An arm that departs in several
settings at once (`tied`, `cells`, `search`) is compared with the base case under that name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loragrid.runtime.atomic_files import sha256_json
from loragrid.study.completion import setting_names
from loragrid.study.grid import ARMS, Cell
from loragrid.study.run_names import value_text
from loragrid.study.study_file import Study

Place = tuple[tuple[str, str], ...]
BASE_CASE = "base case"  # the value of the base case on an axis of arms
UNTRAINED = "none"  # the method whose result is the base's own score


@dataclass(frozen=True)
class CellPairs:
    """One value of an axis and the pairs of cells that show its effect.

    `value` is as in the study file; `text` and `base_case_text` are short forms. A pair is the cells
    with the base case's value and those with this one, each under all seeds; nothing else differs. The
    second side is empty for the method `none`, whose result is the base's.
    """

    axis: str
    value: Any
    text: str
    base_case_text: str
    pairs: list[tuple[list[Cell], list[Cell]]]


def setting_key(cell: Cell) -> str:
    """A key that two cells share when they differ only in the seed."""
    return sha256_json({key: value for key, value in cell.identity.items() if key != "seed"} | {"base": cell.base})


def settings_of_cells(cells: Iterable[Cell]) -> list[list[Cell]]:
    """The cells grouped by setting, in the grid's order."""
    settings: dict[str, list[Cell]] = {}
    for cell in cells:
        settings.setdefault(setting_key(cell), []).append(cell)
    return list(settings.values())


def compared_axes(cells: Iterable[Cell]) -> list[str]:
    """The axes on which any of the cells departs, settings in the schema's order and then arms."""
    departing = {axis for cell in cells for axis in cell.arm}
    return [axis for axis in (*setting_names(), *ARMS) if axis in departing]


def study_axes(study: Study) -> list[str]:
    """The axes of a study's grid, also of one that only compares with the untrained base."""
    found = compared_axes(study.cells)
    if "method" not in found and UNTRAINED in study.grid.axes.get("method", ()):
        found.append("method")
    return found


def place_of(arm: Mapping[str, Any], *without: str) -> Place:
    """What an arm departs in apart from some axes: equal for runs that differ in those alone."""
    return tuple(sorted((axis, value_text(value)) for axis, value in arm.items() if axis not in without))


def value_on(cell: Cell, axis: str, base_case: Mapping[str, Any]) -> Any:
    """A run's value on an axis as in the study file, where an expression stays an expression."""
    return cell.arm.get(axis, base_case[axis])


def cell_pairs(cells: Iterable[Cell], study: Study) -> list[CellPairs]:
    """Every axis value that has a pair, by axis and then in the order of the cells."""
    cells = list(cells)
    found = []
    for axis in dict.fromkeys((*study_axes(study), *compared_axes(cells))):
        if axis in ARMS:
            found += _arms(axis, cells)
        else:
            found += _values(axis, cells, study.yaml["base_case"])
        if axis == "method" and UNTRAINED in study.grid.axes.get("method", ()):
            found += _untrained(cells, study.base_case.method)
    return found


def _arms(axis: str, cells: list[Cell]) -> list[CellPairs]:
    case = [cell for cell in cells if not cell.arm]
    by_name: dict[str, list[Cell]] = {}
    for cell in cells:
        if axis in cell.arm:
            by_name.setdefault(str(cell.arm[axis]), []).append(cell)
    if not case:
        return []
    return [CellPairs(axis, name, name, BASE_CASE, [(case, members)]) for name, members in by_name.items()]


def _values(axis: str, cells: list[Cell], base_case: Mapping[str, Any]) -> list[CellPairs]:
    by_value: dict[str, dict[Place, list[Cell]]] = {}
    values: dict[str, Any] = {}
    for cell in cells:
        value = value_on(cell, axis, base_case)
        values[value_text(value)] = value
        places = by_value.setdefault(value_text(value), {})
        places.setdefault(place_of(cell.arm, axis), []).append(cell)
    default = value_text(base_case[axis])
    partners = by_value.pop(default, {})
    found = []
    # A factorial grid has a pair per combination of the other settings, a one-factor grid one.
    for text, places in by_value.items():
        pairs = [(partners[place], places[place]) for place in places if place in partners]
        if pairs:
            found.append(CellPairs(axis, values[text], text, default, pairs))
    return found


def _untrained(cells: list[Cell], method: str) -> list[CellPairs]:
    """The base as the arm without training, beside the cells that train by the base case's method."""
    trained: dict[Place, list[Cell]] = {}
    for cell in cells:
        if "method" not in cell.arm and not set(cell.arm) & set(ARMS):
            trained.setdefault(place_of(cell.arm), []).append(cell)
    if not trained:
        return []
    return [CellPairs("method", UNTRAINED, UNTRAINED, method, [(members, []) for members in trained.values()])]
