"""The whole study's diagnosis: causes of every run, faults of the bases, and what must not be compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from loragrid.comparing.causes import as_dicts, diagnose, unmade
from loragrid.comparing.comparisons import Terms
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.run_evidence import RunEvidence, gather_evidence
from loragrid.comparing.study_checks import base_faults, caveats, leaks, not_comparable
from loragrid.formatting import change, plain_name, visible
from loragrid.records.outcomes import Outcome
from loragrid.study.study_file import Study


@dataclass(frozen=True)
class Diagnoses:
    """`summary` goes into compare.json; `columns` (run → column → value) into runs.csv."""

    summary: dict[str, Any]
    columns: dict[str, dict[str, Any]]


def diagnose_study(
    study: Study,
    results: Path,
    outcomes: list[Outcome],
    tables: dict[str, ItemTable],
    *,
    comparisons: pd.DataFrame,
    axes: pd.DataFrame,
    controls: pd.DataFrame,
    heldout: dict[str, str],
    target: str | None,
    terms: Terms,
) -> Diagnoses:
    """Causes per run in the order of the grid; a run without any has an empty list: no fault found."""
    evidence = gather_evidence(outcomes, results)
    faults, leaking = base_faults(outcomes, tables, study, results, terms), leaks(results, study.data_sets)
    units = {table.task: table.unit for table in tables.values()}
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in comparisons.to_dict("records"):
        for run in row["runs"].split():
            rows.setdefault(run, []).append(row)
    lost = [] if controls.empty else controls[controls["verdict"] == "worse"].to_dict("records")
    causes = {}
    for run, found in evidence.items():
        own = diagnose(found, rows.get(run, []), units=units, target=target)
        own += [leaking[found.outcome.cell.data]] if found.outcome.cell.data in leaking else []
        own += [cause for cause in faults.get(found.outcome.base, []) if cause.cause == "broken_base"]
        causes[run] = as_dicts(own) + [_precision(row) for row in lost if row["low_model"] == found.outcome.model]
    common = _equal_tokens(evidence)
    summary = {
        "diagnoses": causes,
        "unmade_checks": {run: told for run, found in evidence.items() if (told := unmade(found))},
        "base_faults": {base: as_dicts(found) for base, found in faults.items()},
        "not_comparable": not_comparable(outcomes, heldout, axes),
        "caveats": caveats(study, outcomes),
        "equal_tokens": common,
    }
    return Diagnoses(summary, {run: _columns(found, common) for run, found in evidence.items()})


def _precision(row: dict[str, Any]) -> dict[str, str]:
    moved = f"{plain_name(row['task'])} {change(row['difference'], row['unit'], words=True)}"
    evidence = f"the untrained base: {moved} in {row['precision']}, against {visible(row['high_model'])}"
    return {"cause": "precision", "name": "Precision", "evidence": evidence, "threshold": "a proved loss of the base"}


def _equal_tokens(evidence: dict[str, RunEvidence]) -> int | None:
    """The most tokens that every finished run has seen, at which all held-out losses can be read off."""
    ends = [e.path.heldout_tokens[-1] for e in evidence.values() if _finished(e) and len(e.path.heldout_tokens)]
    return int(min(ends)) if ends else None


def _finished(evidence: RunEvidence) -> bool:
    return evidence.path is not None and evidence.outcome.record.status == "finished"


def _columns(evidence: RunEvidence, common: int | None) -> dict[str, Any]:
    loss = evidence.path.heldout_at(common) if evidence.path is not None and common is not None else None
    return {
        "epochs": evidence.epochs,
        "equal_tokens": common,
        "heldout_loss_at_equal_tokens": loss,
        "adapter_distance": evidence.distance,
    }
