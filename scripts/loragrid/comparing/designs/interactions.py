"""Whether the effect of one setting depends on another: tables of two axes, tested item by item.

The interaction at a pair of values is a difference of differences: what both departures do
together, minus what each does alone. Whether the best value of one axis moves with the other is a
stricter question, a crossover (Gail & Simon 1985, Biometrics 41:361): one value has to be proved
better than another at one place and proved worse at another.
"""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.comparisons import Terms, paired_rows
from loragrid.comparing.designs.axis_effects import equal_tokens, intended, mean_of_seeds
from loragrid.comparing.designs.axis_tables import AxisTable, Point, axis_tables
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.statistics.paired_statistics import BETTER, UNSURE
from loragrid.comparing.verdicts import judge, widen_by_seeds
from loragrid.records.outcomes import Outcome
from loragrid.study.study_file import Study

# Codes of `movement`: the best column moves with the row, is the same in every row, or neither is proved.
MOVES, STAYS, OPEN, NOT_TESTED = "moves", "stays", "open", "not_tested"
CONTRAST, WITHIN_ROW = "contrast", "within_row"


def interactions(
    outcomes: list[Outcome],
    tables: dict[str, ItemTable],
    study: Study,
    noise: dict[str, dict[str, Any]],
    terms: Terms,
) -> list[dict[str, Any]]:
    """Per pair of axes the scores of every task and what their tests prove, as codes and numbers.

    The tests of a pair of axes are corrected as two families of their own, target and retention.
    """
    return [_interaction(axes, tables, study, noise, terms) for axes in axis_tables(outcomes, study)]


def _interaction(
    axes: AxisTable,
    tables: dict[str, ItemTable],
    study: Study,
    noise: dict[str, dict[str, Any]],
    terms: Terms,
) -> dict[str, Any]:
    unequal = _on_unequal_tokens(axes, study)
    tasks = {task: _TaskScores(axes, table) for task, table in tables.items()}
    tests = [] if unequal else [row for scores in tasks.values() for row in scores.tests(terms)]
    frame = pd.DataFrame(tests, columns=None if tests else ["task", "group", "kind"])
    frame = widen_by_seeds(frame, noise, terms)
    judged = [frame[frame["group"] == group].copy() for group in ("target", "retention")]
    families = [judge([part], tables, terms) for part in judged]
    rows = [row for part in judged for row in part.to_dict("records")]
    return {
        "rows_axis": axes.rows_axis,
        "columns_axis": axes.columns_axis,
        "rows": axes.rows,
        "columns": axes.columns,
        "base": list(axes.base),
        "places": len(axes.places),
        "seeds": min(len(runs) for place in axes.places for runs in place.values()),
        "families": families,
        "unequal_tokens": unequal,
        "tasks": {
            task: _with_proofs(scores.summary(), [row for row in rows if row["task"] == task], axes)
            for task, scores in tasks.items()
            if scores.values
        },
    }


def _on_unequal_tokens(axes: AxisTable, study: Study) -> bool:
    """Whether runs of the table trained on unequal tokens that the study did not ask for."""
    for place in axes.places:
        for pair in combinations(place.values(), 2):
            if not equal_tokens(pair) and not intended(pair, study):
                return True
    return False


class _TaskScores:
    """The item values of one task at each pair of values, averaged over seeds and places."""

    def __init__(self, axes: AxisTable, table: ItemTable) -> None:
        self.axes, self.table = axes, table
        places = axes.places
        first = next(iter(places[0].values()))[0]
        if table.weights is not None:
            # Losses of several models are over different tokens.
            places = [place for place in places if _models(place) == {first.model}]
        self.values: dict[Point, np.ndarray] = {}
        self.seed_share: dict[Point, float] = {}
        for point in axes.points:
            runs = [place[point] for place in places if point in place]
            scored = all(o.subject in table.values for members in runs for o in members)
            if runs and scored:
                self.values[point] = np.mean([mean_of_seeds(members, table) for members in runs], axis=0)
                self.seed_share[point] = sum(1 / len(members) for members in runs) / len(runs) ** 2
        self.first = first.subject

    def summary(self) -> dict[str, Any]:
        """The score at each pair of values, and the best column of each row."""
        sign = 1 if self.table.higher_is_better else -1
        scores, best = [], []
        for row in self.axes.rows:
            line = [self._score((row, column)) for column in self.axes.columns]
            known = [(sign * score, -place) for place, score in enumerate(line) if score is not None]
            scores.append(line)
            best.append(-max(known)[1] if len(known) == len(line) else None)
        return {"scores": scores, "best": best}

    def _score(self, point: Point) -> float | None:
        if point not in self.values:
            return None
        values = self.values[point]
        mask = ~np.isnan(values)
        return float(np.average(values[mask], weights=self.table.weights_of(self.first, mask)))

    def tests(self, terms: Terms) -> list[dict[str, Any]]:
        """A row per interaction with the base case's values, and per pair of columns in a row."""
        base_row, base_column = self.axes.base
        found = []
        for row, column in self.axes.points:
            alone = (row, base_column), (base_row, column)
            if row == base_row or column == base_column:
                continue
            found += self._test({(row, column): 1, self.axes.base: 1, alone[0]: -1, alone[1]: -1}, terms, row, column)
        for row in self.axes.rows:
            for one, other in combinations(self.axes.columns, 2):
                found += self._test({(row, other): 1, (row, one): -1}, terms, row, other, than=one)
        return found

    def _test(
        self, signs: dict[Point, int], terms: Terms, row: str, column: str, than: str | None = None
    ) -> list[dict[str, Any]]:
        """The test of a sum of signed scores against zero, as one row; none where a score is missing."""
        if not signs.keys() <= self.values.keys():
            return []
        sides = {sign: sum(self.values[point] for point, own in signs.items() if own == sign) for sign in (1, -1)}
        mask = ~np.isnan(sides[1] + sides[-1])
        weights = self.table.weights_of(self.first, mask)
        head = {"task": self.table.task, "group": self.table.group, "kind": CONTRAST if than is None else WITHIN_ROW}
        head |= {"row": row, "column": column, "than": than}
        head["seed_share"] = sum(self.seed_share[point] for point in signs)
        return [
            head | paired_rows(self.table, mask, sides[-1][mask], sides[1][mask][None], weights=weights, terms=terms)[0]
        ]


def _models(place: dict[Point, list[Outcome]]) -> set[str]:
    return {outcome.model for runs in place.values() for outcome in runs}


def _with_proofs(summary: dict[str, Any], rows: list[dict[str, Any]], axes: AxisTable) -> dict[str, Any]:
    """The scores of one task with what its judged tests prove: the interaction, and where the best column is."""
    names = ("row", "column", "difference", "low", "high", "p_corrected", "detectable", "verdict")
    contrasts = [{name: row.get(name) for name in names} for row in rows if row["kind"] == CONTRAST and row["verdict"]]
    within = [row for row in rows if row["kind"] == WITHIN_ROW and row["verdict"]]
    best = [None if place is None else axes.columns[place] for place in summary["best"]]
    return summary | {"contrasts": contrasts, "movement": movement(within, axes.rows, axes.columns, best)}


def movement(
    within: list[dict[str, Any]], rows: list[str], columns: list[str], best: list[str | None]
) -> dict[str, Any]:
    """Whether the best column moves with the row, by the judged pairs of columns within rows.

    The evidence names rows and columns in which the measured best of one row is proved worse in
    another, if there are such; `best` is the measured best column of each row.
    """
    if not within:
        return {"code": NOT_TESTED}
    better: dict[tuple[str, str], list[str]] = {}  # (column, other) → rows in which the first is proved better
    for test in within:
        if test["verdict"] == UNSURE:
            continue
        pair = (test["column"], test["than"])
        better.setdefault(pair if test["verdict"] == BETTER else pair[::-1], []).append(test["row"])
    measured = dict(zip(rows, best))
    crossings = [
        [[here, one, other], [there, other, one]]
        for (one, other), where in better.items()
        for here in where
        for there in better.get((other, one), [])
    ]
    if crossings:
        # The two that readers see outlined in the heat map say most.
        outlined = [sum(measured[row] == column for row, column, _ in crossing) for crossing in crossings]
        return {"code": MOVES, "evidence": crossings[outlined.index(max(outlined))]}
    for column in columns:
        if all(better.get((column, other), []) == rows for other in columns if other != column):
            return {"code": STAYS, "best": column}
    return {"code": OPEN}
