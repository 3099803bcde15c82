"""Whether the effect of one setting depends on another: tables of two axes, tested item by item.

The interaction at a pair of values is a difference of differences: what both departures do
together, minus what each does alone. Whether the best value of one axis moves with the other is a
stricter question, a crossover (Gail & Simon 1985, Biometrics 41:361): one value has to be proved
better than another at one place and proved worse at another.
"""

from itertools import combinations
from typing import Any

import numpy as np

from loragrid.comparing.comparisons import side_of
from loragrid.comparing.contrasts import ADAPTERS, SETTING, contrast_row
from loragrid.comparing.designs.axis_effects import equal_tokens, intended
from loragrid.comparing.designs.axis_tables import AxisTable, Point, axis_tables
from loragrid.comparing.measures import Measure
from loragrid.comparing.study_results import JudgedTables
from loragrid.comparing.verdicts import judge
from loragrid.records.outcomes import Outcome
from loragrid.statistics.paired_statistics import BETTER, DIFFER, UNSURE, WORSE
from loragrid.study.study_file import Study

# Codes of `movement`: the best column moves with the row, is the same in every row, or neither is proved.
MOVES, STAYS, OPEN, NOT_TESTED = "moves", "stays", "open", "not_tested"
CONTRAST, WITHIN_ROW = "contrast", "within_row"


def interactions(outcomes: list[Outcome], judged: JudgedTables, study: Study) -> list[dict[str, Any]]:
    """Per pair of axes the scores of every measure and what their tests prove, as codes and numbers.

    The tests of a pair of axes are corrected in families of their own.
    """
    return [_interaction(axes, judged, study) for axes in axis_tables(outcomes, study)]


def _interaction(axes: AxisTable, judged: JudgedTables, study: Study) -> dict[str, Any]:
    unequal = _on_unequal_tokens(axes, study)
    measures = [_MeasureScores(axes, measure) for measure in judged.measures]
    rows = [] if unequal else [row for scores in measures for row in scores.tests(judged)]
    families = judge(rows, {measure.name: measure for measure in judged.measures}, judged.terms)
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
            scores.measure.name: _with_proofs(
                scores.summary(), [row for row in rows if row["task"] == scores.measure.name], axes
            )
            for scores in measures
            if scores.places
        },
    }


def _on_unequal_tokens(axes: AxisTable, study: Study) -> bool:
    """Whether runs of the table trained on unequal tokens that the study did not ask for."""
    for place in axes.places:
        for pair in combinations(place.values(), 2):
            if not equal_tokens(pair) and not intended(pair, study):
                return True
    return False


class _MeasureScores:
    """The scores of one measure at each pair of values, averaged over seeds and places."""

    def __init__(self, axes: AxisTable, measure: Measure) -> None:
        self.axes, self.measure = axes, measure
        places = axes.places
        if any(table.weights is not None for table in measure.tables):
            # Losses of several models are over different tokens.
            first = next(iter(places[0].values()))[0]
            places = [place for place in places if _models(place) == {first.model}]
        scored = [place for place in places if measure.lacks(_subjects(place)) is None]
        # A mean over some of the places would be another quantity.
        self.places = scored if len(scored) == len(places) else []

    def summary(self) -> dict[str, Any]:
        """The score at each pair of values, and the best column of each row."""
        sign = 1 if self.measure.higher_is_better else -1
        scores, best = [], []
        for row in self.axes.rows:
            line = [self._score((row, column)) for column in self.axes.columns]
            known = [(sign * score, -place) for place, score in enumerate(line) if score is not None]
            scores.append(line)
            best.append(-max(known)[1] if len(known) == len(line) else None)
        return {"scores": scores, "best": best}

    def _score(self, point: Point) -> float | None:
        runs = [run.subject for place in self.places for run in place.get(point, [])]
        return float(np.mean([self.measure.score(run) for run in runs])) if runs else None

    def tests(self, judged: JudgedTables) -> list[dict[str, Any]]:
        """A row per interaction with the base case's values, and per pair of columns in a row."""
        base_row, base_column = self.axes.base
        found = []
        for row, column in self.axes.points:
            alone = (row, base_column), (base_row, column)
            if row == base_row or column == base_column:
                continue
            signs = {(row, column): 1, self.axes.base: 1, alone[0]: -1, alone[1]: -1}
            found += self._test(signs, judged, {"kind": CONTRAST, "row": row, "column": column, "than": None})
        for row in self.axes.rows:
            for one, other in combinations(self.axes.columns, 2):
                head = {"kind": WITHIN_ROW, "row": row, "column": other, "than": one}
                found += self._test({(row, other): 1, (row, one): -1}, judged, head)
        return found

    def _test(self, signs: dict[Point, int], judged: JudgedTables, head: dict[str, Any]) -> list[dict[str, Any]]:
        """The test of a sum of signed scores against zero, as one row; none where a score is missing."""
        places = [place for place in self.places if signs.keys() <= place.keys()]
        if not places:
            return []
        sides = [[side_of(place[point], sign) for point, sign in signs.items()] for place in places]
        return [head | contrast_row(self.measure, sides, judged.spreads, judged.terms)]


def _subjects(place: dict[Point, list[Outcome]]) -> list[str]:
    return [outcome.subject for runs in place.values() for outcome in runs]


def _models(place: dict[Point, list[Outcome]]) -> set[str]:
    return {outcome.model for runs in place.values() for outcome in runs}


def _with_proofs(summary: dict[str, Any], rows: list[dict[str, Any]], axes: AxisTable) -> dict[str, Any]:
    """The scores of one task with what its judged tests prove: the interaction, and where the best column is."""
    names = ("row", "column", "difference", "low", "high", "p_corrected", "detectable", "verdict")
    contrasts = [{name: row.get(name) for name in names} for row in rows if row["kind"] == CONTRAST and row["verdict"]]
    within = [row for row in rows if row["kind"] == WITHIN_ROW and row["verdict"]]
    best = [None if place is None else axes.columns[place] for place in summary["best"]]
    apart = [best_apart(within, row, column) for row, column in zip(axes.rows, best)]
    return summary | {
        "best_apart": apart,
        "contrasts": contrasts,
        "movement": movement(within, axes.rows, axes.columns, best),
    }


def best_apart(within: list[dict[str, Any]], row: str, best: str | None) -> str | None:
    """How sure the measured best of a row is: the level at which it differs from all others of the row, or None."""
    tests = [test for test in within if test["row"] == row and best in (test["column"], test["than"])]
    verdicts = {test["verdict"] for test in tests}
    if not verdicts or UNSURE in verdicts:
        return None
    return SETTING if verdicts <= {BETTER, WORSE} else ADAPTERS


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
        # Two adapters that differ say nothing about their settings.
        if test["verdict"] in (UNSURE, DIFFER):
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
