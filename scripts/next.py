"""Find the cheapest ways to close the questions that the study leaves open; propose a study file that takes them.

    next.py --study FILE --results results/demo --out results/demo/next
    next.py --study FILE --results results/demo --out results/demo/next --propose [--budget-hours 4]

Reads the records and what compare wrote; no model and no torch. The first form writes next.json into
the output folder, for the report; the second writes {study}.yaml and prints a table.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loragrid.deciding.compared_results import ComparedResults, read_compared
from loragrid.deciding.next_steps import NextSteps, find_next_steps
from loragrid.deciding.next_table import next_table
from loragrid.deciding.next_texts import option_text, question_text, so_far_text
from loragrid.deciding.options import Option
from loragrid.deciding.proposal import propose
from loragrid.deciding.questions import Question
from loragrid.deciding.study_changes import Change, changed_file, study_text
from loragrid.errors import UserError, log_option, print_result, run_main, summary_line
from loragrid.runtime.atomic_files import write_json, write_text
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.progress_lines import working
from loragrid.study.study_file import Study, load_study

SCHEMA = 1


def find_next(*, study: Study, results: Path, out: Path) -> dict[str, Any]:
    """Write next.json and return its content."""
    compared = read_compared(study, results)
    found = describe(find_next_steps(compared), compared)
    write_json(out / "next.json", found)
    return found


def propose_study(
    *, study: Study, results: Path, out: Path, budget_hours: float | None = None
) -> tuple[Path | None, str]:
    """Write the study file with the best options; its path, None if there is nothing to propose, and the table as text.

    Without `budget_hours` the best is one option, with it all that fit.
    """
    compared = read_compared(study, results)
    steps = find_next_steps(compared)
    proposal = propose(steps.maker, steps.ways, budget_hours)
    found, path = describe(steps, compared) | {"budget_hours": budget_hours, "proposal": None}, None
    if proposal is not None:
        path = out / f"{study.name}.yaml"
        write_proposal(proposal.change, steps, compared, path)
        unfinished = sum(len(arm.seeds) - len(arm.runs) for arm in compared.arms.values())
        found["proposal"] = describe_option(proposal, steps) | {"file": str(path), "unfinished": unfinished}
    return path, next_table(found, Path.cwd())


def write_proposal(change: Change, steps: NextSteps, compared: ComparedResults, path: Path) -> None:
    """Write the study file with a change; it may be the file that the study was read from."""
    known = {key: arm.departs for key, arm in compared.arms.items() if arm.departs is not None}
    settings = changed_file(compared.study, change, known | steps.forecast.new_arms(change))
    write_text(path, study_text(compared.study.name, settings))
    # A file that does not load would be found out only by the next call.
    load_study(str(path.resolve()))


def describe(steps: NextSteps, compared: ComparedResults) -> dict[str, Any]:
    """What next.json says: questions and options with codes, numbers and texts, each list cheapest first."""
    options = sorted(steps.options, key=lambda option: option.hours_per_closed)
    ids = {id(option): f"option-{number}" for number, option in enumerate(options, 1)}
    measures = {question.measure for question, _ in steps.ways}
    return {
        "schema": SCHEMA,
        "study": compared.study.name,
        "device": steps.costs.device,
        "power": compared.terms["power"],
        "margin": compared.terms["retention_margin"],
        "assumed_spread": any(steps.forecast.beliefs.assumed.get(measure) for measure in measures),
        "questions": [
            describe_question(question, steps, compared) | {"cheapest": None if option is None else ids[id(option)]}
            for question, option in steps.ways
        ],
        "options": [{"id": ids[id(option)]} | describe_option(option, steps) for option in options],
        "untested": [asdict(found) for found in steps.untested],
        "code": code_digest("next"),
    }


def describe_question(question: Question, steps: NextSteps, compared: ComparedResults) -> dict[str, Any]:
    """An open question: what it asks, what was measured, and what is assumed of the true difference."""
    effect = steps.forecast.effect(question)
    return {
        "name": question.name,
        "kind": question.kind,
        "text": question_text(question, compared),
        "so_far": so_far_text(question, compared),
        "task": question.measure,
        "about": dict(question.about),
        "arms": [dict(side.arm) for side in question.sides],
        "seeds": [steps.forecast.seeds_before(side.arm) for side in question.sides],
        "margin": question.margin,
        "prior_sd": effect.sd,
        "expected": steps.forecast.expected(question),
    }


def describe_option(option: Option, steps: NextSteps) -> dict[str, Any]:
    """An option: what it adds, what it costs, and which questions it closes how probably."""
    return {
        "kind": option.kind,
        "text": option_text(option, steps.forecast),
        "adds": describe_change(option.change),
        "runs": option.runs,
        "train_hours": option.train_hours,
        "score_hours": option.score_hours,
        "hours": option.hours,
        "closes": dict(option.chances),
        "expected_closed": option.expected_closed,
        "hours_per_closed": option.hours_per_closed,
    }


def describe_change(change: Change) -> dict[str, Any]:
    """A change as plain values."""
    return {
        "grid_seeds": list(change.grid_seeds),
        "arm_seeds": [{"arm": dict(arm), "seeds": list(seeds)} for arm, seeds in change.arm_seeds.items()],
        "items": dict(change.items),
        "values": [{"axis": axis, "value": value} for axis, value in change.values],
        "cells": {name: dict(departs) for name, departs in change.named.items()},
    }


def positive_hours(text: str) -> float:
    """A number of hours above zero."""
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < float("inf"):
        raise UserError(f"--budget-hours: not a number of hours above 0 ({text}). Fix: give one, such as 4.")
    return hours


def main() -> None:
    """Map the command line to `find_next` or `propose_study`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__), parents=[log_option()])
    parser.add_argument("--study", required=True)
    parser.add_argument("--results", type=Path, required=True, help="folder of the study's results")
    parser.add_argument("--out", type=Path, required=True, help="folder for next.json or the study file")
    parser.add_argument("--propose", action="store_true", help="write a study file and print the table")
    parser.add_argument("--budget-hours", type=positive_hours, help="most hours that the proposal may take")
    parser.add_argument("--text", type=Path, help="file to write the printed table to as well")
    options = parser.parse_args()
    places = {"study": load_study(options.study), "results": options.results, "out": options.out}
    if not options.propose:
        with working("[next] looking for what would decide the open questions"):
            found = find_next(**places)
        count = len(found["questions"])
        text = f"{count} found; the page says what would decide them" if count else "none"
        print_result(f"next: {text}")
        return
    with working("[next] looking for what would decide the open questions"):
        _, table = propose_study(**places, budget_hours=options.budget_hours)
    if options.text is not None:
        write_text(options.text, table)
    print(table)


if __name__ == "__main__":
    run_main(main)
