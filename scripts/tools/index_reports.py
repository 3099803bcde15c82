"""Writes reports/index.html: a line for each report in the folder, with title, answer, date and cost.

Usage: python scripts/tools/index_reports.py [--reports FOLDER]
"""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import argparse
import html.parser
from dataclasses import dataclass, field
from pathlib import Path

from loragrid.errors import UserError, print_line, run_main, summary_line
from loragrid.formatting import plural, visible
from loragrid.paths import ROOT
from loragrid.reporting.figures.svg import PageFigures
from loragrid.reporting.render import render
from loragrid.runtime.atomic_files import write_text

# Names of the attributes that a report's first screen carries for this list.
FACTS = ("data-question", "data-short", "data-text", "data-finished", "data-cost")


@dataclass
class Report(html.parser.HTMLParser):
    """What one page says of itself: its title, and the facts of its first screen; empty where it has none."""

    title: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    in_heading: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where the heading begins, and the facts of the first screen."""
        self.in_heading = self.in_heading or (tag == "h1" and not self.title)
        known = dict(attrs)
        if known.get("id") == "answer":
            self.facts = {name: known.get(name) or "" for name in FACTS}

    def handle_endtag(self, tag: str) -> None:
        """Note where the heading ends."""
        if tag == "h1":
            self.in_heading = False

    def handle_data(self, data: str) -> None:
        """Collect the heading."""
        if self.in_heading:
            self.title += data


def index_reports(folder: Path) -> Path:
    """Write index.html into a folder of reports and return its path.

    Raises `UserError` if the folder holds no report.
    """
    pages = sorted(folder.glob("*/report.html"))
    if not pages:
        raise UserError(f"{folder}: no report in it (*/report.html). Fix: run `snakemake --cores 1` first.")
    rows = [read_report(page, folder) for page in pages]
    # The newest first; reports without a date are last.
    rows.sort(key=lambda row: (row["finished"], row["study"]), reverse=True)
    sections = {"rows": rows, "count": plural(len(rows), "report"), "names": []}
    out = folder / "index.html"
    write_text(out, render("pages.html.j2", sections, PageFigures(folder)))
    return out


def read_report(page: Path, folder: Path) -> dict[str, str]:
    """The line of one report."""
    found = Report()
    found.feed(page.read_text(encoding="utf-8"))
    facts = {name.removeprefix("data-"): visible(found.facts.get(name, ""), 400) for name in FACTS}
    study = page.parent.name
    return {
        "study": visible(study, 80),
        "link": page.relative_to(folder).as_posix(),
        "title": visible(" ".join(found.title.split()) or study, 300),
        **facts,
    }


def main() -> None:
    """Map the command line to `index_reports`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__))
    parser.add_argument("--reports", type=Path, default=ROOT / "reports", help="folder of the reports")
    print_line(f"index: {index_reports(parser.parse_args().reports)}")


if __name__ == "__main__":
    run_main(main)
