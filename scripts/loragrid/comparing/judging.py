"""All comparisons of a study with the base and with the base case, judged in their families."""

from dataclasses import replace

from loragrid.comparing.comparisons import settings_of, versus_base, versus_precision
from loragrid.comparing.designs.axis_effects import Comparability, versus_base_case
from loragrid.comparing.designs.axis_pairs import axis_values
from loragrid.comparing.measures import loss_by_byte, measures_of, spreads_of
from loragrid.comparing.study_results import JudgedTables, StudyResults
from loragrid.comparing.terms import Terms
from loragrid.comparing.verdicts import as_table, judge


def judge_results(results: StudyResults, terms: Terms) -> JudgedTables:
    """Make all comparisons, and judge them in their families."""
    study, outcomes = results.study, results.outcomes
    measures = measures_of(results.tables, results.target)
    settings = [[run.subject for run in members] for members in settings_of(outcomes)]
    spreads = spreads_of(measures, settings)
    by_byte = loss_by_byte(results.loss_by_byte) if results.loss_by_byte else None
    axis_spreads = spreads if by_byte is None else spreads | spreads_of([by_byte], settings)
    axes = axis_values(outcomes, study)
    # An upper bound of any family: every setting and every axis value on every measure.
    terms = replace(terms, comparisons=max(1, (len(settings) + len(axes)) * len(measures)))
    tables = [
        versus_base(outcomes, measures, spreads, terms),
        versus_base_case(outcomes, measures, axis_spreads, terms, Comparability(study, results.heldout, by_byte)),
        versus_precision(study, outcomes, measures, terms),
    ]
    families = judge([row for rows in tables for row in rows], {m.name: m for m in measures}, terms)
    return JudgedTables(*(as_table(rows) for rows in tables), families, measures, spreads, terms)
