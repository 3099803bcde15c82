"""Report: one self-contained HTML page, drawn from the comparison and the records.

    report.py --study FILE --results results/demo --out reports/demo/report.html
    report.py --foreign FOLDER --out report.html [--base RUN] [--title TEXT]    # finished runs from elsewhere

Leaves the page (no request leaves it, no script is needed to read it), beside it figures/ (SVG and PNG) and tables/
(CSV). The same results give the same bytes.
"""

import argparse
import base64
import hashlib
import sys
from pathlib import Path
from typing import Any

from loragrid.errors import run_main
from loragrid.external.base_comparison import find_base
from loragrid.external.reading import read_external
from loragrid.external.sections import draw_external_figures, external_sections
from loragrid.formatting import plain_name, visible, whole
from loragrid.paths import SCRIPTS
from loragrid.records.outcomes import collect
from loragrid.reporting.comparison_tables import (
    axis_sections,
    base_rows,
    control_rows,
    methods_used,
    noise_floor,
    task_notes,
)
from loragrid.reporting.costs_section import cost_table, total_cost
from loragrid.reporting.figures.study_figures import Pictures, draw_all, safe_id
from loragrid.reporting.page import (
    Material,
    asked,
    base_fault_rows,
    diagnosis_rows,
    gather,
    healthy_runs,
    run_rows,
)
from loragrid.reporting.provenance_section import assumptions, data_facts, provenance, reproduce, sessions
from loragrid.reporting.retention import answers, ship_lines
from loragrid.reporting.search_section import draw_tune, tune_section
from loragrid.reporting.side_by_side import side_by_side
from loragrid.runtime.atomic_files import write_bytes, write_text
from loragrid.study.study_file import Study, load_study

TEMPLATES = SCRIPTS / "loragrid" / "reporting" / "templates"
TABLES = ("runs.csv", "scores.csv", "comparisons.csv", "axes.csv")


def report(*, study: Study, results: Path, out: Path) -> None:
    """Write the page and what lies beside it."""
    material = gather(study, results, collect(study, results))
    pictures = draw_all(material, clean_folder(out.parent / "figures"))
    draw_tune(material, pictures)
    tables = clean_folder(out.parent / "tables")
    for name in TABLES:
        write_bytes(tables / name, (results / "compare" / name).read_bytes())
    write_text(out, fill("report.html.j2", context(material), pictures))
    print(f"report: {out}", file=sys.stderr)


def report_external(*, source: Path, out: Path, base: str | None, title: str | None) -> None:
    """Write the page of runs that were made elsewhere: what their files allow, and what is missing for more."""
    results = read_external(source)
    base = find_base(results, base)
    pictures = draw_external_figures(results, base, out.parent / f"{out.stem}_figures")
    content = external_sections(results, base, title or f"Runs in {source.name}", source)
    write_text(out, fill("external.html.j2", content, pictures))
    print(f"report: {out}", file=sys.stderr)


def clean_folder(folder: Path) -> Path:
    """The folder, made, without the pictures and tables of an earlier report: those of a run that is gone must not stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.suffix in (".svg", ".png", ".csv"):
            path.unlink()
    return folder


def fill(template: str, content: dict[str, Any], pictures: Pictures) -> str:
    """A page as text. Templates escape all that they are given; only our own SVG and style sheet are passed as they are."""
    import jinja2
    from markupsafe import Markup

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8") + "\n" + pictures.styles.css() + "\n"
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    figures = {name: {**found, "svg": Markup(found["svg"])} for name, found in pictures.found.items()}
    return environment.get_template(template).render(
        **content,
        figures=figures,
        css=Markup(css),
        script=Markup(script),
        policy=policy(css, script),
        safe_id=safe_id,
    )


def context(material: Material) -> dict[str, Any]:
    """All sections as plain values."""
    compared = material.compared
    return {
        "title": visible(material.study.title, 300),
        "study": visible(material.study.name),
        "asked": asked(material),
        "answers": answers(compared),
        "target": plain_name(compared.target) if compared.target else None,
        "terms": compared.summary["terms"],
        "family": compared.summary["family"],
        "noise": noise_floor(material),
        "methods_used": methods_used(compared),
        **task_notes(material),
        "case_seed": material.study.base_case.seed,
        "seeds": compared.summary["seeds"],
        "tasks": [{"name": plain_name(name), **task} for name, task in compared.summary["tasks"].items()],
        "axes": axis_sections(material),
        "ship": ship_lines(compared),
        "against_base": base_rows(material),
        "factorial": material.study.grid.design == "factorial",
        "controls": control_rows(material),
        "why": diagnosis_rows(material),
        "healthy": healthy_runs(material),
        "base_faults": base_fault_rows(material),
        "caveats": compared.summary["caveats"],
        "not_comparable": compared.summary["not_comparable"],
        "scorecard": compared.summary["scorecard"],
        "side": side_by_side(
            material.results,
            material.outcomes,
            compared.summary["trade_offs"],
            compared.base_case_runs,
            compared.labels,
            alpha=compared.summary["terms"]["alpha"],
        ),
        "tune": tune_section(material),
        "costs": cost_table(material),
        "total_cost": total_cost(material),
        "data": data_facts(material),
        "equal_tokens": whole(compared.summary["equal_tokens"]) if compared.summary["equal_tokens"] else None,
        "runs": run_rows(material),
        "sessions": sessions(material),
        "assumptions": assumptions(material),
        "provenance": provenance(material),
        "reproduce": reproduce(material),
    }


def policy(css: str, script: str) -> str:
    """A content-security policy that allows this style sheet and this script by their hashes, and nothing else."""
    return (
        f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def main() -> None:
    """Map the command line to `report`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study")
    what.add_argument("--foreign", type=Path, help="folder or file of finished runs that were made elsewhere")
    parser.add_argument("--results", type=Path, help="folder of the study's results")
    parser.add_argument("--out", type=Path, required=True, help="the page")
    parser.add_argument("--base", help="with --foreign: the run that is the untrained base")
    parser.add_argument("--title", help="with --foreign: the page's heading")
    options = parser.parse_args()
    if options.foreign:
        report_external(source=options.foreign, out=options.out, base=options.base, title=options.title)
        return
    if options.results is None:
        parser.error("--study needs --results")
    report(study=load_study(options.study), results=options.results, out=options.out)


if __name__ == "__main__":
    run_main(main)
