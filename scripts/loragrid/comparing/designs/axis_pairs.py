"""The axes of a study, and which of its runs differ on one axis alone.

An axis is a setting on which some run departs from the base case. An arm that departs in several
settings at once (`tied`, `cells`, `search`) is compared with the base case under that name.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loragrid.comparing.designs.data_sizes import origin
from loragrid.records.outcomes import Outcome
from loragrid.study.completion import setting_names
from loragrid.study.grid import ARMS, Cell
from loragrid.study.run_names import value_text
from loragrid.study.study_file import Study

# Runs with the base case's value and runs with another value, each under all seeds.
Pair = tuple[list[Outcome], list[Outcome]]
Place = tuple[tuple[str, str], ...]
BASE_CASE = "base case"  # the value of the base case on an axis of arms
UNTRAINED = "none"  # the method whose result is the base's own score


@dataclass(frozen=True)
class AxisValue:
    """One value of an axis with the pairs that show its effect.

    `value` and `base_case_value` are texts. In a pair nothing differs but this value and the seeds.
    """

    axis: str
    value: str
    base_case_value: str
    pairs: list[Pair]


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


def axis_values(outcomes: list[Outcome], study: Study) -> list[AxisValue]:
    """Every axis value that has a pair, by axis and then by size."""
    runs = [o for o in outcomes if o.kind == "run" and o.status == "scored"]
    bases = {o.subject: o for o in outcomes if o.kind == "base" and o.status == "scored"}
    found = []
    for axis in dict.fromkeys((*study_axes(study), *compared_axes(o.cell for o in runs))):
        if axis in ARMS:
            found += _arms(axis, runs)
        else:
            found += _values(axis, runs, study)
        if axis == "method" and UNTRAINED in study.grid.axes.get("method", ()):
            found += _untrained(runs, bases, study.base_case.method)
    return found


def _arms(axis: str, runs: list[Outcome]) -> list[AxisValue]:
    case = [o for o in runs if not o.cell.arm]
    by_name: dict[str, list[Outcome]] = {}
    for outcome in runs:
        if axis in outcome.cell.arm:
            by_name.setdefault(str(outcome.cell.arm[axis]), []).append(outcome)
    if not case:
        return []
    return [AxisValue(axis, name, BASE_CASE, [(case, members)]) for name, members in by_name.items()]


def _values(axis: str, runs: list[Outcome], study: Study) -> list[AxisValue]:
    base_case = study.yaml["base_case"]
    by_value: dict[str, dict[Place, list[Outcome]]] = {}
    raw: dict[str, Any] = {}
    for outcome in runs:
        value = value_on(outcome.cell, axis, base_case)
        raw[value_text(value)] = value
        places = by_value.setdefault(value_text(value), {})
        places.setdefault(place_of(outcome.cell.arm, axis), []).append(outcome)
    default = value_text(base_case[axis])
    partners = by_value.pop(default, {})
    found = []
    # A factorial grid has a pair per combination of the other settings, a one-factor grid one.
    for text in in_order(axis, raw, study):
        if text not in by_value:
            continue
        places = by_value[text]
        pairs = [(partners[place], places[place]) for place in places if place in partners]
        if pairs:
            found.append(AxisValue(axis, text, default, pairs))
    return found


def _untrained(runs: list[Outcome], bases: dict[str, Outcome], method: str) -> list[AxisValue]:
    """The base as the arm without training, beside the runs that train by the base case's method."""
    trained: dict[Place, list[Outcome]] = {}
    for outcome in runs:
        if "method" not in outcome.cell.arm and not set(outcome.cell.arm) & set(ARMS):
            trained.setdefault(place_of(outcome.cell.arm), []).append(outcome)
    pairs = [(members, [bases[members[0].base]]) for members in trained.values() if members[0].base in bases]
    return [AxisValue("method", UNTRAINED, method, pairs)] if pairs else []


def in_order(axis: str, raw: Mapping[str, Any], study: Study) -> list[str]:
    """Texts of values (`raw`: text → value) by size; values without a size keep their order, last."""
    return sorted(raw, key=lambda text: size_on(axis, raw[text], study))


def size_on(axis: str, value: Any, study: Study) -> tuple[int, float]:
    """A key by which values of an axis sort; data sets of one source sort by their rows."""
    if axis == "data" and len({origin(study.data, name) for name in study.grid.axes.get("data", ())}) == 1:
        rows = study.data[value].rows
        return 0, math.inf if rows is None else rows
    return size_of(value)


def size_of(value: Any) -> tuple[int, float]:
    """A key by which values sort: numbers, budgets and batches by size, others last."""
    if isinstance(value, Mapping) and len(value) == 1:
        value = next(iter(value.values()))
    if isinstance(value, list | tuple) and value and all(isinstance(item, int) for item in value):
        size = 1
        for item in value:
            size *= item
        return 0, size
    if isinstance(value, int | float):
        return 0, value
    return 1, 0
