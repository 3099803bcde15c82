"""Compare every run with its untrained base, item by item, and every axis with the base case.

    compare.py --study FILE --results results/demo --out results/demo/compare

Uses the results that exist; runs without results stay in the tables with the reason. Writes into
the output folder runs.csv (one row per run and base), scores.csv (one per subject and task),
comparisons.csv, axes.csv and, last, compare.json. They hold numbers, thresholds and codes; the
report turns them into sentences.
"""

import argparse
import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.comparing.best_setting import best_setting
from loragrid.comparing.contamination import contamination
from loragrid.comparing.designs.along_runs import along_runs
from loragrid.comparing.designs.interactions import interactions
from loragrid.comparing.designs.learning_curves import learning_curves
from loragrid.comparing.diagnosing.diagnoses import diagnose_study
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.judging import judge_results
from loragrid.comparing.literature.scorecard import scorecard
from loragrid.comparing.literature.study_cells import StudyCells
from loragrid.comparing.margins import margin_demands
from loragrid.comparing.measures import describe_spreads
from loragrid.comparing.run_table import score_rows, setting_scores, subject_rows
from loragrid.comparing.study_results import SCHEMA, JudgedTables, StudyResults, read_results
from loragrid.comparing.terms import Terms
from loragrid.comparing.trade_off import trade_offs
from loragrid.errors import log_option, print_line, print_result, run_main, summary_line
from loragrid.records.outcomes import Outcome, identical_weights
from loragrid.records.seal import SEALED, digests_of, write_seal
from loragrid.runtime.atomic_files import json_text, write_text
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.progress_lines import working
from loragrid.study.study_file import Study, load_study

if TYPE_CHECKING:
    import pandas


TABLES = ("runs.csv", "scores.csv", "comparisons.csv", "axes.csv")


def compare(*, study: Study, results: Path, out: Path) -> dict[str, Any]:
    """Write all tables of the comparison and return the content of compare.json."""
    import pandas  # after the project's own modules, which say in one line if it is not installed

    terms = Terms(**vars(study.compare))
    found = read_results(study, results)
    judged = judge_results(found, terms)
    diagnoses = diagnose_study(found, judged, terms)
    summary = {
        **summarise(found, judged, terms),
        **diagnoses.summary,
        **curves_and_interactions(found, judged),
        "best_setting": best_of_study(found, judged),
        "scorecard": scorecard(cells_of(found, judged)),
        "contamination": contamination(found, terms.confidence),
        "code": code_digest("compare"),
    }
    write_table(out / "runs.csv", pandas.DataFrame(subject_rows(found.outcomes, diagnoses.columns)))
    write_table(out / "scores.csv", pandas.DataFrame(score_rows(found.tables, terms.confidence)))
    write_table(out / "comparisons.csv", judged.comparisons)
    write_table(out / "axes.csv", judged.axes)
    # Snakemake knows only this file, so it comes last: once it exists, the tables are complete.
    text = json_text(finite(summary | {SEALED: True}))
    write_seal(out, digests_of(out, [out / name for name in TABLES]), record="compare.json", text=text)
    write_text(out / "compare.json", text)
    report_progress(found.outcomes, judged.families)
    return summary


def summarise(results: StudyResults, judged: JudgedTables, terms: Terms) -> dict[str, Any]:
    """What compare.json says of the study, its tasks and its trade-offs."""
    outcomes, tables = results.outcomes, results.tables
    return {
        "schema": SCHEMA,
        "study": results.study.name,
        "terms": asdict(terms),
        "families": judged.families,
        "tasks": {table.task: describe_task(table) for table in tables.values()},
        "primary_target": results.target,
        "statuses": dict(Counter(outcome.status for outcome in outcomes if outcome.kind == "run")),
        "seeds": sorted({outcome.cell.settings.seed for outcome in outcomes if outcome.cell}),
        "seed_spreads": describe_spreads(judged.spreads),
        "trade_offs": trade_offs(judged.comparisons, tables, results.target, terms),
        "margin_demands": margin_demands(judged),
        "setting_scores": setting_scores(outcomes, judged),
        "precision_controls": judged.controls.to_dict("records"),
    }


def best_of_study(results: StudyResults, judged: JudgedTables) -> dict[str, Any] | None:
    """The setting that gained most on the main target, its gain shrunk for the choice."""
    if results.target is None or judged.comparisons.empty:
        return None
    rows = judged.comparisons[judged.comparisons["task"] == results.target].to_dict("records")
    return best_setting(rows, results.tables[results.target], judged.terms)


def curves_and_interactions(results: StudyResults, judged: JudgedTables) -> dict[str, Any]:
    """What compare.json says of pairs of axes, of data sizes, and of scores along runs."""
    return {
        "interactions": interactions(results.outcomes, judged, results.study),
        "learning_curves": learning_curves(results.outcomes, judged, results.study),
        "along": along_runs(results.outcomes, judged, results.target),
    }


def describe_task(table: ItemTable) -> dict[str, Any]:
    """A task's purpose, metric and size."""
    return {
        "group": table.group,
        "metric": table.metric,
        "higher_is_better": table.higher_is_better,
        "unit": table.unit,
        "binary": table.binary,
        "items": len(table.items),
        "clusters": None if table.clusters is None else len(set(table.clusters)),
        "requests": len(set(table.requests)),
    }


def cells_of(results: StudyResults, judged: JudgedTables) -> StudyCells:
    """What the published findings are tested on."""
    unit = results.tables[results.target].unit if results.target else "plain"
    return StudyCells(judged, results.outcomes, results.target, unit)


def finite(value: Any) -> Any:
    """The value with NaN and infinity as None and numpy numbers as Python's: JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(path: Path, table: "pandas.DataFrame") -> None:
    """Write a table as CSV, atomically, with floats in full so that reading restores them."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def report_progress(outcomes: list[Outcome], families: dict[str, dict[str, int]]) -> None:
    """Print on stderr how much of the study was compared."""
    runs = [outcome for outcome in outcomes if outcome.kind == "run"]
    scored = sum(run.status == "scored" for run in runs)
    tests = sum(count for family in families.values() for count in family.values())
    for subjects in identical_weights(outcomes):
        print_line(f"compare: {' and '.join(subjects)} have byte-identical weights: what they differ in had no effect")
    print_result(f"compare: runs scored: {scored} of {len(runs)}, comparisons: {tests}")


def main() -> None:
    """Map the command line to `compare`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__), parents=[log_option()])
    parser.add_argument("--study", required=True)
    parser.add_argument("--results", type=Path, required=True, help="folder of the study's results")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    options = parser.parse_args()
    with working("[compare] comparing the runs"):
        compare(study=load_study(options.study), results=options.results, out=options.out)


if __name__ == "__main__":
    run_main(main)
