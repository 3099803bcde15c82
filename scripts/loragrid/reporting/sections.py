"""The page's sections: everything that report.html.j2 shows, as plain values."""

from typing import Any

from loragrid.formatting import plain_name, visible, whole
from loragrid.reporting.certainty_section import (
    family_sentences,
    methods_used,
    seed_spread_rows,
    task_notes,
    task_rows,
)
from loragrid.reporting.comparison_tables import axis_sections, base_table, control_table
from loragrid.reporting.costs_section import card_rows, cost_table, total_cost
from loragrid.reporting.data_section import data_facts, data_failures, data_warnings
from loragrid.reporting.designs_section import along_part, interaction_parts, size_parts
from loragrid.reporting.figures.finding_picture import pictured_findings
from loragrid.reporting.first_screen.section import first_screen
from loragrid.reporting.next_section import next_section
from loragrid.reporting.page import Material, asked
from loragrid.reporting.provenance_section import (
    assumptions,
    default_rows,
    load_lines,
    provenance,
    reproduce,
    sessions,
)
from loragrid.reporting.runs_section import identical_runs, run_rows, setting_columns
from loragrid.reporting.search_section import search_section
from loragrid.reporting.sentences.largest_gain import largest_gain_text, unlearned_texts
from loragrid.reporting.sentences.limits import caveat_sentence, not_comparable_sentence
from loragrid.reporting.sentences.one_seed import one_seed_note
from loragrid.reporting.sentences.retention import answers
from loragrid.reporting.sentences.ship import margin_sentence, ship_lines
from loragrid.reporting.side_by_side import side_by_side
from loragrid.reporting.why_section import base_fault_rows, diagnosis_rows, healthy_runs


def study_sections(material: Material) -> dict[str, Any]:
    """All sections of a study's page."""
    origin = provenance(material)
    return {
        **_answers(material),
        **first_screen(material, origin),
        **_comparisons(material),
        **_causes(material),
        **_certainty(material),
        **_records(material),
        "side": side_by_side(material),
        "tune": search_section(material),
        "next": next_section(material),
        "provenance": origin,
        "names": [*material.study.models, *material.cards],
    }


def _answers(material: Material) -> dict[str, Any]:
    """What was asked and the three answers in full."""
    return {
        "title": visible(material.study.title, 300),
        "study": visible(material.study.name),
        "asked": asked(material),
        "answers": answers(material.compared),
        "one_seed": one_seed_note(material),
        "base_faults": base_fault_rows(material),
        "data_failures": data_failures(material),
        "data_warnings": [*data_warnings(material), *identical_runs(material)],
    }


def _comparisons(material: Material) -> dict[str, Any]:
    """Values against the base case, settings against their bases, and which of them to ship."""
    compared = material.compared
    return {
        "target": plain_name(compared.target) if compared.target else None,
        "factorial": material.study.grid.design == "factorial",
        "axes": axis_sections(material),
        "pairs_of_axes": interaction_parts(material),
        "data_sizes": size_parts(material),
        "along": along_part(material),
        "ship": ship_lines(compared),
        "largest_gain": largest_gain_text(compared),
        "margin": margin_sentence(compared),
        "against_base": base_table(material),
        "controls": control_table(material),
        "scorecard": pictured_findings(compared),
    }


def _causes(material: Material) -> dict[str, Any]:
    """Why settings did worse, the settings without a fault, and the models that learned nothing."""
    unlearned = list(unlearned_texts(material.compared).values())
    return {"why": diagnosis_rows(material), "healthy": healthy_runs(material), "unlearned": unlearned}


def _certainty(material: Material) -> dict[str, Any]:
    """What the verdicts rest on: terms, tests, caveats, assumptions."""
    compared, summary = material.compared, material.compared.summary
    return {
        "terms": summary["terms"],
        "families": family_sentences(compared),
        "spreads": seed_spread_rows(compared),
        "judges_settings": compared.judges_settings,
        "methods_used": methods_used(compared),
        **task_notes(material),
        "seeds": summary["seeds"],
        "tasks": task_rows(compared),
        "caveats": [caveat_sentence(found) for found in summary["caveats"]],
        "not_comparable": [not_comparable_sentence(found) for found in summary["not_comparable"]],
        "assumptions": assumptions(material),
        "defaults": default_rows(material),
    }


def _records(material: Material) -> dict[str, Any]:
    """What the runs' records and the data cards hold."""
    equal_tokens = material.compared.summary["equal_tokens"]
    return {
        "costs": cost_table(material),
        "cards_hours": card_rows(material),
        "total_cost": total_cost(material),
        "data": data_facts(material),
        "equal_tokens": whole(equal_tokens) if equal_tokens else None,
        "runs": run_rows(material),
        "setting_columns": setting_columns(material),
        "adopted": bool(material.study.adopt),
        "sessions": sessions(material),
        "reproduce": reproduce(material),
        "load_lines": load_lines(material),
    }
