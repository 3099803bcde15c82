"""The page's section on causes: settings with a fault, settings without, faults of the bases."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from loragrid.formatting import visible
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.page import Material
from loragrid.reporting.sentences.causes import CauseText, cause_texts, unmade_text

# Setting's label → run of each of its seeds → causes.
Settings = dict[str, dict[str, list[dict[str, Any]]]]


def diagnosis_rows(material: Material) -> list[dict[str, Any]]:
    """Per setting with a fault: its label and causes, each with the seeds in which it holds."""
    compared = material.compared
    reasons = {outcome.subject: outcome.reason for outcome in material.outcomes}
    rows = []
    for label, runs in _by_setting(compared).items():
        if any(runs.values()):
            rows.append({"label": label, "causes": _causes_of_setting(runs, compared, reasons)})
    return rows


def _by_setting(compared: ComparedStudy) -> Settings:
    settings: Settings = {}
    for run, causes in compared.summary["diagnoses"].items():
        if run in compared.setting_labels:
            settings.setdefault(compared.setting_labels[run], {})[run] = causes
    return settings


def _causes_of_setting(
    runs: Mapping[str, list[dict[str, Any]]], compared: ComparedStudy, reasons: Mapping[str, str | None]
) -> list[CauseText]:
    """The causes of a setting's runs, each once, in the words of the first run that has it; symptoms last."""
    first: dict[tuple[str, ...], CauseText] = {}
    holders: dict[tuple[str, ...], list[str]] = {}
    for run, causes in runs.items():
        for found, text in zip(causes, cause_texts(causes, compared.units)):
            key = (found["cause"], found["evidence"], str(found["measured"].get("task")))
            # A run that stopped because its loss was not finite has a record that says more: the step.
            if found["evidence"] == "loss_not_finite" and reasons.get(run):
                text = replace(text, evidence=visible(reasons[run], 300))
            first.setdefault(key, text)
            holders.setdefault(key, []).append(run)
    marked = [replace(text, seeds=_seeds(len(set(holders[key])), len(runs))) for key, text in first.items()]
    return sorted(marked, key=lambda text: bool(text.symptom_of))


def _seeds(count: int, of: int) -> str:
    return f"in {count} of {of} seeds" if of > 1 else ""


def healthy_runs(material: Material) -> list[str]:
    """Labels of the trained settings without a fault, each with the checks that could not be made."""
    compared = material.compared
    unmade = compared.summary["unmade_checks"]
    found = []
    for label, runs in _by_setting(compared).items():
        if any(runs.values()):
            continue
        remarks = _distinct(unmade_text(unmade[run]) for run in runs if run in unmade)
        found.append(f"{label} ({'; '.join(remarks)})" if remarks else label)
    return found


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def base_fault_rows(material: Material) -> list[dict[str, Any]]:
    """Per base with a fault: its label and causes, for the note above all comparisons."""
    compared = material.compared
    return [
        {"label": compared.labels[base], "causes": cause_texts(causes, compared.units)}
        for base, causes in compared.summary["base_faults"].items()
        if base in compared.labels
    ]
