"""The page's section on causes: runs with a fault, runs without, faults of the bases."""

from dataclasses import replace
from typing import Any

from loragrid.formatting import listed, plain_name, visible
from loragrid.reporting.page import Material
from loragrid.reporting.sentences.causes import cause_texts, unmade_text


def diagnosis_rows(material: Material) -> list[dict[str, Any]]:
    """Per run with a fault: its label and causes."""
    compared, rows = material.compared, []
    reasons = {outcome.subject: outcome.reason for outcome in material.outcomes}
    for run, causes in compared.summary["diagnoses"].items():
        if not causes or run not in compared.labels:
            continue
        texts = cause_texts(causes, compared.units)
        # A run that stopped because its loss was not finite has a record that says more: the step.
        if causes[0]["evidence"] == "loss_not_finite" and reasons.get(run):
            texts = [replace(texts[0], evidence=visible(reasons[run], 300)), *texts[1:]]
        rows.append({"label": compared.labels[run], "causes": texts})
    return rows


def healthy_runs(material: Material) -> list[str]:
    """Labels of the trained runs without a fault.

    Each names the checks that could not be made and its likely losses.
    """
    compared = material.compared
    remarks = {run: [unmade_text(unmade)] for run, unmade in compared.summary["unmade_checks"].items()}
    for row in compared.summary["trade_offs"]:
        if row["likely_lost"]:
            tasks = listed([plain_name(task) for task in row["likely_lost"]])
            for run in row["runs"].split():
                remarks.setdefault(run, []).append(f"a loss beyond the margin is likely on {tasks}")
    found = []
    for run, causes in compared.summary["diagnoses"].items():
        if causes or run not in compared.labels:
            continue
        about = f" ({'; '.join(remarks[run])})" if run in remarks else ""
        found.append(compared.labels[run] + about)
    return found


def base_fault_rows(material: Material) -> list[dict[str, Any]]:
    """Per base with a fault: its label and causes, for the note above all comparisons."""
    compared = material.compared
    return [
        {"label": compared.labels[base], "causes": cause_texts(causes, compared.units)}
        for base, causes in compared.summary["base_faults"].items()
        if base in compared.labels
    ]
