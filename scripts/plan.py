"""Plan the study: memory and hours of each cell, and what the design can find, before anything is downloaded.

    plan.py --study FILE --results results/t4 --page reports/t4/plan.html

Prints a table and writes results/t4/plan/plan.csv, the page, and last plan.json. Reads model shapes
from the study file, a local folder or the hub, and the data cards and records that exist. Needs no
GPU and imports no torch.
"""

import argparse
from pathlib import Path
from typing import Any

from loragrid.errors import run_main, summary_line
from loragrid.planning.design_power_rows import design_power
from loragrid.planning.plan_inputs import gather_inputs
from loragrid.planning.plan_page import format_table, render_page
from loragrid.planning.plan_rows import base_rows, default_rows, plan_row, task_rows, totals
from loragrid.planning.plan_texts import setting
from loragrid.runtime.atomic_files import write_csv, write_json, write_text
from loragrid.study.study_file import Study, load_study

SCHEMA = 3


def make_plan(
    *,
    study: Study,
    results: Path,
    session_minutes: float | None = None,
    worker: bool = True,
) -> dict[str, Any]:
    """The plan as plain values; `worker`: on a GPU, the jobs of a base share a resident worker.

    Keys: `device`, `cells`, `bases`, `tasks`, `design`, `data`, `totals`, `liger_kernels`, `defaults`.
    """
    inputs = gather_inputs(study, results=results, session_minutes=session_minutes, worker=worker)
    device, minutes = inputs.device, inputs.session_minutes
    rows = [plan_row(inputs, cell) for cell in study.cells]
    bases = base_rows(inputs, rows)
    return {
        "schema": SCHEMA,
        "study": study.name,
        "title": study.title,
        "device": vars(device) | {"names": list(device.names), "session_minutes": minutes},
        "cells": rows,
        "bases": bases,
        "tasks": task_rows(study),
        "design": design_power(study, results),
        "data": {cell.data: vars(inputs.sizes[cell.run]) for cell in study.cells},
        "totals": totals(rows, bases, minutes),
        "liger_kernels": study.training.liger_kernels,
        "defaults": default_rows(study),
    }


def write_plan_files(plan: dict[str, Any], *, results: Path, page_file: Path) -> None:
    """Write plan.csv (one row per cell), the page, and last plan.json."""
    rows = []
    for cell in plan["cells"]:
        row = {key: value for key, value in cell.items() if key != "flops_by_part"}
        row |= {key: setting(value) for key, value in row.items() if isinstance(value, dict | list)}
        rows.append(row | {"fit_by": "; ".join(cell["fit_by"] or [])})
    write_csv(results / "plan" / "plan.csv", rows)
    write_text(page_file, render_page(plan))
    # Last, so that a reader who finds plan.json finds the other files of the same plan.
    write_json(results / "plan" / "plan.json", plan)


def main() -> None:
    """Map the command line to `make_plan`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__))
    parser.add_argument("--study", required=True, help="study file, or the name of a shipped one")
    parser.add_argument("--results", required=True, type=Path, help="folder of the study's results")
    parser.add_argument("--page", required=True, type=Path, help="the HTML page to write")
    parser.add_argument("--session-minutes", type=float, help="overrides the study file's session")
    no_worker = "count the start of each job, as without resident workers"
    parser.add_argument("--no-worker", action="store_true", help=no_worker)
    parser.add_argument("--text", type=Path, help="file to write the printed table to as well")
    options = parser.parse_args()
    plan = make_plan(
        study=load_study(options.study),
        results=options.results,
        session_minutes=options.session_minutes,
        worker=not options.no_worker,
    )
    write_plan_files(plan, results=options.results, page_file=options.page)
    table = format_table(plan) + f"\nThe same as a page: {options.page}\n"
    if options.text is not None:
        write_text(options.text, table)
    print(table)


if __name__ == "__main__":
    run_main(main)
