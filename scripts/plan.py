"""Plan: will each cell fit, how long will it take, and what does scoring it cost; before anything is downloaded.

    plan.py --study FILE --results results/t4 --page reports/t4/plan.html

Prints a table and leaves results/t4/plan/plan.csv, the page, and plan.json, written last. Reads model shapes from the study
file, a local folder or the hub, data cards and records as far as they are there. Needs no GPU and imports no torch.
"""

import argparse
import csv
import io
from pathlib import Path
from typing import Any

from loragrid.errors import run_main
from loragrid.planning.forecast import device_for, work_of
from loragrid.planning.gpu_cards import choose_device
from loragrid.planning.job_resources import session_length
from loragrid.planning.measurements import data_size, read_measured
from loragrid.planning.plan_page import page, text_table
from loragrid.planning.plan_rows import (
    describe_bases,
    describe_cell,
    describe_scoring,
    describe_size,
    describe_tasks,
    describe_time,
    find_shapes,
    totals,
)
from loragrid.runtime.atomic_files import write_json, write_text
from loragrid.study.study_file import Study, load_study

SCHEMA = 1


def make_plan(*, study: Study, results: Path, session_minutes: float | None = None) -> dict[str, Any]:
    """The plan as plain values: `device`, `cells`, `subjects`, `tasks`, `totals`, `notes`."""
    cells = study.cells
    device = choose_device(study.plan)
    measured = read_measured(study, cells, results, device)
    shapes, unknown = find_shapes(study, cells)
    sizes = {cell.run: data_size(study, cell.data, results) for cell in cells}
    works = {
        cell.run: work_of(study, cell, shapes[cell.model], sizes[cell.run], recomputes=device.kind == "cuda")
        for cell in cells
        if cell.model in shapes
    }
    minutes = session_length(study, session_minutes)
    rows = []
    for cell in cells:
        row = describe_cell(cell)
        if cell.model in shapes:
            shape = shapes[cell.model]
            row |= describe_size(study, cell, shape, device, measured)
            used = device_for(study, shape, device)
            row |= describe_time(cell, cells, works, measured, used, minutes)
            row |= describe_scoring(
                study, cell.run, cell.model, shape, sizes[cell.run].row_tokens, row["tflops"], measured
            )
        rows.append(row | {"problem": unknown.get(cell.model)})
    bases = describe_bases(study, cells, shapes, sizes, rows, measured)
    return {
        "schema": SCHEMA,
        "study": study.name,
        "title": study.title,
        "device": vars(device) | {"names": list(device.names), "session_minutes": minutes},
        "cells": rows,
        "bases": bases,
        "tasks": describe_tasks(study),
        "data": {data: vars(sizes[cell.run]) for cell in cells for data in [cell.data]},
        "totals": totals(rows, bases, minutes),
    }


def write_plan(plan: dict[str, Any], *, results: Path, page_file: Path) -> None:
    """plan.csv (one row per cell), the page, and plan.json last."""
    rows = [{key: value for key, value in row.items() if key != "flops_by_part"} for row in plan["cells"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"fit_by": "; ".join(row["fit_by"] or [])} for row in rows)
    write_text(results / "plan" / "plan.csv", text.getvalue())
    write_text(page_file, page(plan))
    write_json(results / "plan" / "plan.json", plan)


def main() -> None:
    """Map the command line to `make_plan`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True, help="study file, or the name of a shipped one")
    parser.add_argument("--results", required=True, type=Path, help="folder of the study's results")
    parser.add_argument("--page", required=True, type=Path, help="the HTML page to write")
    parser.add_argument("--session-minutes", type=float, help="length of a session, instead of the study file's")
    parser.add_argument("--text", type=Path, help="keep what is printed in this file too")
    options = parser.parse_args()
    plan = make_plan(study=load_study(options.study), results=options.results, session_minutes=options.session_minutes)
    write_plan(plan, results=options.results, page_file=options.page)
    table = text_table(plan) + f"\nThe same as a page: {options.page}\n"
    if options.text is not None:
        write_text(options.text, table)
    print(table)


if __name__ == "__main__":
    run_main(main)
