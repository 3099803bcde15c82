"""The values of a study's axes with the runs that show their effects."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loragrid.comparing.designs.data_sizes import origin
from loragrid.records.outcomes import Outcome
from loragrid.study.cell_pairs import CellPairs, cell_pairs
from loragrid.study.grid import ARMS
from loragrid.study.study_file import Study

# Runs with the base case's value and runs with another value, each under all seeds.
Pair = tuple[list[Outcome], list[Outcome]]


@dataclass(frozen=True)
class AxisValue:
    """One value of an axis with the pairs that show its effect.

    `value` and `base_case_value` are texts. In a pair nothing differs but this value and the seeds.
    """

    axis: str
    value: str
    base_case_value: str
    pairs: list[Pair]


def axis_values(outcomes: list[Outcome], study: Study) -> list[AxisValue]:
    """Every axis value that has a pair, by axis and then by size."""
    runs = {o.cell.run: o for o in outcomes if o.kind == "run" and o.status == "scored"}
    bases = {o.subject: o for o in outcomes if o.kind == "base" and o.status == "scored"}
    by_axis: dict[str, list[CellPairs]] = {}
    for value in cell_pairs((o.cell for o in runs.values()), study):
        by_axis.setdefault(value.axis, []).append(value)
    found = []
    for axis, values in by_axis.items():
        if axis not in ARMS:
            order = in_order(axis, {value.text: value.value for value in values}, study)
            values = sorted(values, key=lambda value: order.index(value.text))
        found += [_with_outcomes(value, runs, bases) for value in values]
    return [value for value in found if value.pairs]


def _with_outcomes(value: CellPairs, runs: dict[str, Outcome], bases: dict[str, Outcome]) -> AxisValue:
    pairs = []
    for before, after in value.pairs:
        trained = [runs[cell.run] for cell in before]
        if after:
            pairs.append((trained, [runs[cell.run] for cell in after]))
        elif trained[0].base in bases:
            pairs.append((trained, [bases[trained[0].base]]))
    return AxisValue(value.axis, value.text, value.base_case_text, pairs)


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
