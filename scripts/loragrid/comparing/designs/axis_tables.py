"""The runs of two axes as a table: one cell per pair of values, all other settings equal."""

from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from loragrid.comparing.designs.axis_pairs import in_order
from loragrid.records.outcomes import Outcome
from loragrid.study.cell_pairs import Place, place_of, study_axes, value_on
from loragrid.study.grid import ARMS
from loragrid.study.run_names import value_text
from loragrid.study.study_file import Study

Point = tuple[str, str]  # value of the rows' axis, value of the columns' axis


@dataclass(frozen=True)
class AxisTable:
    """The runs of two axes: `places` map each pair of values to its runs, all other settings equal.

    `rows` and `columns` are the values in order, `base` the base case's pair of values.
    """

    rows_axis: str
    columns_axis: str
    rows: list[str]
    columns: list[str]
    base: Point
    places: list[dict[Point, list[Outcome]]]

    @property
    def points(self) -> list[Point]:
        """Every pair of values, row by row."""
        return list(product(self.rows, self.columns))


def axis_tables(outcomes: list[Outcome], study: Study) -> list[AxisTable]:
    """A table per pair of axes on which runs depart together."""
    runs = [o for o in outcomes if o.kind == "run" and o.status == "scored" and not set(o.cell.arm) & set(ARMS)]
    axes = [axis for axis in study_axes(study) if axis not in ARMS]
    tables = []
    for one, other in combinations(axes, 2):
        if any({one, other} <= o.cell.arm.keys() for o in runs):
            tables.append(_axis_table(one, other, runs, study))
    return tables


def _axis_table(one: str, other: str, runs: list[Outcome], study: Study) -> AxisTable:
    base_case = study.yaml["base_case"]
    raw: dict[str, dict[str, Any]] = {one: {}, other: {}}
    for axis, values in raw.items():
        for outcome in runs:
            value = value_on(outcome.cell, axis, base_case)
            values[value_text(value)] = value
    # The question that everyone has is whether the best learning rate moves; else the longer axis
    # has the columns, where a reader looks for the best.
    columns, rows = (other, one) if len(raw[other]) > len(raw[one]) else (one, other)
    if "learning_rate" in raw:
        columns, rows = "learning_rate", one if other == "learning_rate" else other
    places: dict[Place, dict[Point, list[Outcome]]] = {}
    for outcome in runs:
        point = tuple(value_text(value_on(outcome.cell, axis, base_case)) for axis in (rows, columns))
        place = places.setdefault(place_of(outcome.cell.arm, one, other), {})
        place.setdefault(point, []).append(outcome)
    count = len(raw[rows]) * len(raw[columns])
    whole = [place for place in places.values() if len(place) == count]
    # Averages over places need every pair of values in each of them.
    used = whole or [max(places.values(), key=len)]
    texts = {axis: in_order(axis, values, study) for axis, values in raw.items()}
    base = value_text(base_case[rows]), value_text(base_case[columns])
    return AxisTable(rows, columns, texts[rows], texts[columns], base, used)
