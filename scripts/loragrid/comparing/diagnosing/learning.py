"""Models that learned nothing: no setting of theirs is above its own untrained base on the main target."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from loragrid.comparing.best_setting import best_setting
from loragrid.comparing.diagnosing.run_causes import gained
from loragrid.comparing.study_results import JudgedTables, StudyResults
from loragrid.records.outcomes import Outcome

Row = dict[str, Any]
# Codes: gains beyond the margin are excluded, or not even one was shown.
NOTHING, NOT_SHOWN = "learned_nothing", "no_gain_shown"


def learned_nothing(results: StudyResults, judged: JudgedTables) -> list[Row]:
    """The bases on which no setting is shown to have learned, with the largest gain of any of their settings.

    Compared with another model such a model's score says only how good its base was.
    """
    if results.target is None or judged.comparisons.empty:
        return []
    table = results.tables[results.target]
    runs = {outcome.subject: outcome for outcome in results.outcomes if outcome.kind == "run"}
    found = []
    for base, rows in _target_rows(judged.comparisons, results.target, runs).items():
        if any(gained(row) for row in rows):
            continue
        best = best_setting(rows, table, judged.terms)
        settings = [runs[row["run"]].cell.settings for row in rows]
        excluded = table.unit == "share" and best["high"] < judged.terms.retention_margin
        found.append(
            {
                "base": base,
                "model": runs[rows[0]["run"]].model,
                "code": NOTHING if excluded else NOT_SHOWN,
                "settings": len(rows),
                "learning_rates": sorted({setting.learning_rate for setting in settings}),
                "best": best,
            }
        )
    return found


def _target_rows(comparisons: pd.DataFrame, target: str, runs: Mapping[str, Outcome]) -> dict[str, list[Row]]:
    """Base → the tested comparisons of its settings on the target, without adopted adapters."""
    rows: dict[str, list[Row]] = {}
    for row in comparisons[comparisons["task"] == target].to_dict("records"):
        if row["verdict"] and row["run"] in runs:
            rows.setdefault(row["base"], []).append(row)
    return rows
