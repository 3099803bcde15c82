"""Compare: every run against its untrained base, item by item, and every axis against the base case.

    compare.py --study FILE --results results/demo --out results/demo/compare

Works on whatever is there; what is not stays in the tables with its reason. Leaves in the output folder runs.csv (one
row per run and base), scores.csv (one per subject and task), comparisons.csv, axes.csv and, last, compare.json.
"""

import argparse
import math
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from loragrid.comparing.axis_effects import versus_base_case
from loragrid.comparing.comparisons import Terms, versus_base, versus_precision
from loragrid.comparing.diagnoses import diagnose_study
from loragrid.comparing.item_tables import ItemTable, load_items
from loragrid.comparing.run_table import run_rows, score_rows
from loragrid.comparing.scorecard import scorecard
from loragrid.comparing.study_checks import axis_names
from loragrid.comparing.trade_off import trade_offs
from loragrid.comparing.verdicts import judge, seed_noise, widen_by_seeds
from loragrid.errors import run_main
from loragrid.records.outcomes import Outcome, collect, data_cards
from loragrid.runtime.atomic_files import write_json, write_text
from loragrid.runtime.code_digest import code_digest
from loragrid.study.study_file import Study, load_study

SCHEMA = 1


def compare(*, study: Study, results: Path, out: Path) -> dict[str, Any]:
    """Write all tables of the comparison and return the content of compare.json."""
    terms = Terms(**vars(study.compare))
    outcomes = collect(study, results)
    tables = load_items(results, outcomes)
    heldout, noise = heldout_fingerprints(study, results), seed_noise(outcomes, tables)
    comparisons = widen_by_seeds(versus_base(outcomes, tables, terms), noise, terms)
    axes = versus_base_case(outcomes, tables, study.base_case, terms, heldout=heldout)
    axes = widen_by_seeds(axes, noise, terms)
    controls = versus_precision(study, outcomes, tables, terms)
    family = judge([comparisons, axes, controls], tables, terms)
    target = primary_target(tables)
    diagnoses = diagnose_study(
        study,
        results,
        outcomes,
        tables,
        comparisons=comparisons,
        axes=axes,
        controls=controls,
        heldout=heldout,
        target=target,
        terms=terms,
    )
    summary = {
        "schema": SCHEMA,
        "study": study.name,
        "terms": asdict(terms),
        "family": family,
        "tasks": {table.task: describe_task(table) for table in tables.values()},
        "primary_target": target,
        "axis_names": axis_names(study),
        "statuses": dict(Counter(outcome.status for outcome in outcomes if outcome.kind == "run")),
        "seeds": sorted({outcome.cell.seed for outcome in outcomes if outcome.cell}),
        "noise": noise,
        "trade_offs": trade_offs(comparisons, tables, target, terms),
        "precision_controls": controls.to_dict("records"),
        **diagnoses.summary,
        "scorecard": scorecard(
            axes, outcomes, controls, target, tables[target].unit if target else "plain", axis_names(study)
        ),
        "code": code_digest("compare"),
    }
    write_table(out / "runs.csv", pd.DataFrame(run_rows(outcomes, diagnoses.columns)))
    write_table(out / "scores.csv", pd.DataFrame(score_rows(tables, terms.confidence)))
    write_table(out / "comparisons.csv", comparisons)
    write_table(out / "axes.csv", axes)
    write_json(out / "compare.json", finite(summary))
    report_progress(outcomes, family)
    return summary


def heldout_fingerprints(study: Study, results: Path) -> dict[str, str]:
    """Data id → fingerprint of its held-out tokens, from the data cards that are there."""
    cards = data_cards(study, results).items()
    return {data: card["heldout_fingerprint"] for data, card in cards if card.get("heldout_fingerprint")}


def primary_target(tables: dict[str, ItemTable]) -> str | None:
    """The target task that the report speaks of: the first that is a score, else the first."""
    targets = [table for table in tables.values() if table.group == "target"]
    scores = [table for table in targets if table.unit == "share"]
    return (scores or targets)[0].task if targets else None


def describe_task(table: ItemTable) -> dict[str, Any]:
    """What the report must know of a task."""
    clusters = None if table.clusters is None else len(set(table.clusters))
    return {
        "group": table.group,
        "metric": table.metric,
        "higher_is_better": table.higher_is_better,
        "unit": table.unit,
        "binary": table.binary,
        "items": len(table.items),
        "clusters": clusters,
    }


def finite(value: Any) -> Any:
    """The value with NaN and infinity as None and numpy numbers as plain ones, for JSON that every reader takes."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A table as CSV, whole or not at all; numbers as Python writes them, so that reading gives the same ones."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def report_progress(outcomes: list[Outcome], family: int) -> None:
    """One line on stderr: how much of the study was there to compare."""
    runs = [outcome for outcome in outcomes if outcome.kind == "run"]
    scored = sum(run.status == "scored" for run in runs)
    print(f"compare: {scored} of {len(runs)} runs scored, {family} comparisons", file=sys.stderr)


def main() -> None:
    """Map the command line to `compare`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True)
    parser.add_argument("--results", type=Path, required=True, help="folder of the study's results")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    options = parser.parse_args()
    compare(study=load_study(options.study), results=options.results, out=options.out)


if __name__ == "__main__":
    run_main(main)
