"""Report: one self-contained HTML page, made from the comparison and the records.

    report.py --study FILE --results results/demo --out reports/demo/report.html
    report.py --external PATH --out report.html [--base RUN] [--title TEXT]

The page loads nothing and is readable without scripts. Its figures are saved beside it in figures/
(SVG and PNG), its tables in tables/ (CSV) and the digests of all three in sealed.json. The same results give the same
bytes.
"""

import argparse
from pathlib import Path

from loragrid.errors import log_option, print_result, run_main, summary_line
from loragrid.external.base_comparison import compare_with_base, find_base
from loragrid.external.figures import draw_external_figures
from loragrid.external.reading import read_external
from loragrid.external.sections import external_sections
from loragrid.records.outcomes import collect
from loragrid.records.seal import digests_of, write_seal
from loragrid.reporting.figures.design_figures import draw_design_figures
from loragrid.reporting.figures.score_figures import draw_score_figures
from loragrid.reporting.figures.search_figures import draw_search_figures
from loragrid.reporting.figures.study_figures import draw_study_figures
from loragrid.reporting.page import gather
from loragrid.reporting.render import render
from loragrid.reporting.sections import study_sections
from loragrid.runtime.atomic_files import write_bytes, write_text
from loragrid.runtime.progress_lines import working
from loragrid.study.study_file import Study, load_study

DRAWN = (".svg", ".png", ".csv")
TABLES = ("runs.csv", "scores.csv", "comparisons.csv", "axes.csv")


def report(*, study: Study, results: Path, out: Path) -> None:
    """Write the page of a study, its figures and its tables."""
    material = gather(study, results, collect(study, results))
    figures = draw_study_figures(material, empty_folder(out.parent / "figures"))
    draw_score_figures(material, figures)
    draw_design_figures(material, figures)
    draw_search_figures(material, figures)
    copy_tables(results / "compare", empty_folder(out.parent / "tables"))
    text = render("report.html.j2", study_sections(material), figures)
    drawn = [file for name in ("figures", "tables") for file in (out.parent / name).iterdir() if file.suffix in DRAWN]
    write_seal(out.parent, digests_of(out.parent, drawn), record=out.name, text=text)
    write_text(out, text)
    print_result(f"report: {out}")


def report_external(*, source: Path, out: Path, base: str | None, title: str | None) -> None:
    """Write the page of runs that loragrid did not train, as far as their files allow."""
    results = read_external(source)
    base = find_base(results, base)
    rows = compare_with_base(results, base)
    figures = draw_external_figures(results, base, rows, out.parent / f"{out.stem}_figures")
    sections = external_sections(results, base, rows, title or f"Runs in {source.name}", source)
    write_text(out, render("external.html.j2", sections, figures))
    print_result(f"report: {out}")


def empty_folder(folder: Path) -> Path:
    """The folder, made if it is missing, without the figures and tables of an earlier report."""
    folder.mkdir(parents=True, exist_ok=True)
    # Only what a report writes: the folder may hold files of the user.
    for path in folder.iterdir():
        if path.suffix in DRAWN:
            path.unlink()
    return folder


def copy_tables(source: Path, folder: Path) -> None:
    """Copy the tables of `compare` into a folder."""
    for name in TABLES:
        write_bytes(folder / name, (source / name).read_bytes())


def main() -> None:
    """Map the command line to `report` or `report_external`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__), parents=[log_option()])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", help="study file, or the name of one in config/studies")
    what.add_argument("--external", type=Path, help="files of runs that loragrid did not train")
    # The flag's name until 0.1; scripts and notes still use it.
    what.add_argument("--foreign", dest="external", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help="folder of the study's results")
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    parser.add_argument("--base", help="with --external: the run that is the base, not fine-tuned")
    parser.add_argument("--title", help="with --external: the page's heading")
    options = parser.parse_args()
    if options.external:
        base, title = options.base, options.title
        with working("[report] reading the runs and drawing the page"):
            report_external(source=options.external, out=options.out, base=base, title=title)
        return
    if options.results is None:
        parser.error("--study needs --results")
    with working("[report] drawing the page"):
        report(study=load_study(options.study), results=options.results, out=options.out)


if __name__ == "__main__":
    run_main(main)
