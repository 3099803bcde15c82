"""The diagnosis of a whole study: causes per run, faults of bases, limits of comparison."""

from dataclasses import asdict, dataclass
from typing import Any

from loragrid.comparing.diagnosing.causes import Cause, with_symptoms
from loragrid.comparing.diagnosing.learning import learned_nothing
from loragrid.comparing.diagnosing.loss_causes import unmade
from loragrid.comparing.diagnosing.run_causes import run_causes
from loragrid.comparing.diagnosing.run_evidence import RunEvidence, gather_evidence
from loragrid.comparing.diagnosing.study_checks import base_faults, caveats, leaks, not_comparable
from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.comparing.study_results import JudgedTables, StudyResults
from loragrid.comparing.terms import Terms
from loragrid.statistics.paired_statistics import WORSE


@dataclass(frozen=True)
class Diagnoses:
    """`summary` goes into compare.json; `columns` (run → column → value) into runs.csv."""

    summary: dict[str, Any]
    columns: dict[str, dict[str, Any]]


def diagnose_study(results: StudyResults, judged: JudgedTables, terms: Terms) -> Diagnoses:
    """Causes per run, in the grid's order; an empty list means that no fault was found."""
    evidence = gather_evidence(results.outcomes, results.folder)
    faults = base_faults(results, terms)
    causes = _causes(results, judged, evidence, faults)
    unmade_checks = {run: unmade(found) for run, found in evidence.items()}
    common = _equal_tokens(evidence)
    summary = {
        "diagnoses": {run: [asdict(cause) for cause in found] for run, found in causes.items()},
        "unmade_checks": {run: found for run, found in unmade_checks.items() if found is not None},
        "base_faults": {base: [asdict(cause) for cause in found] for base, found in faults.items()},
        "learned_nothing": learned_nothing(results, judged),
        "not_comparable": not_comparable(results.outcomes, results.heldout, judged.axes),
        "caveats": caveats(results.study, results.outcomes),
        "equal_tokens": common,
    }
    return Diagnoses(summary, {run: _columns(found, common) for run, found in evidence.items()})


def _causes(
    results: StudyResults, judged: JudgedTables, evidence: dict[str, RunEvidence], faults: dict[str, list[Cause]]
) -> dict[str, list[Cause]]:
    """Run → its own causes, those of its data, its base and its base's precision, and last the symptoms."""
    rows: dict[str, list[dict[str, Any]]] = {}
    # A setting's row belongs to each of its seeds' runs.
    for row in judged.comparisons.to_dict("records"):
        for run in row["runs"].split():
            rows.setdefault(run, []).append(row)
    leaking, losses = leaks(results.folder, results.study.data_sets), _precision_losses(judged)
    causes = {}
    for run, found in evidence.items():
        outcome = found.outcome
        own = run_causes(found, rows.get(run, []))
        if outcome.cell.data in leaking:
            own.append(leaking[outcome.cell.data])
        # Only a broken base explains a bad run; one at chance limits what can be forgotten.
        own += [cause for cause in faults.get(outcome.base, []) if cause.cause == "broken_base"]
        causes[run] = with_symptoms(own + losses.get(outcome.base, []))
    return causes


def _precision_losses(judged: JudgedTables) -> dict[str, list[Cause]]:
    """Base → its proved losses against the same model in a higher precision: on tasks, or else on their mean."""
    proved: dict[str, list[dict[str, Any]]] = {}
    for row in judged.controls.to_dict("records"):
        if row["verdict"] == WORSE:
            proved.setdefault(row["low_base"], []).append(row)
    losses = {}
    for base, rows in proved.items():
        named = [row for row in rows if row["task"] != POOLED_RETENTION] or rows
        losses[base] = [
            Cause("precision", "base_lost", {n: row[n] for n in ("task", "difference", "precision", "high_precision")})
            for row in named
        ]
    return losses


def _equal_tokens(evidence: dict[str, RunEvidence]) -> int | None:
    """The most tokens that every finished run has seen: there all losses can be compared."""
    ends = [e.path.heldout_tokens[-1] for e in evidence.values() if _finished(e) and len(e.path.heldout_tokens)]
    return int(min(ends)) if ends else None


def _finished(evidence: RunEvidence) -> bool:
    return evidence.path is not None and evidence.outcome.record.status == "finished"


def _columns(evidence: RunEvidence, common: int | None) -> dict[str, Any]:
    loss = None
    if evidence.path is not None and common is not None:
        loss = evidence.path.heldout_at(common)
    return {
        "epochs": evidence.epochs,
        "equal_tokens": common,
        "heldout_loss_at_equal_tokens": loss,
        "adapter_distance": evidence.distance,
    }
