"""Command-line options that choose the app's study and models, shared by app.py and make_space.py."""

import argparse
from pathlib import Path

import yaml

from loragrid.app.catalogue import Catalogue, read_catalogue
from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.study_file import load_study


def add_catalogue_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for `catalogue_from_options`."""
    parser.add_argument("--study", help="name or file of the study (default: the one in config/config.yaml)")
    parser.add_argument("--results", type=Path, help="folder of the study's results (results/STUDY)")
    parser.add_argument("--report", type=Path, help="the study's report (reports/STUDY/report.html)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--run", help="run to start with (default: the best of the comparison)")
    which.add_argument(
        "--adapter",
        help="what to start with: an adapter's folder, an export's merged/, or owner/name[@revision] on the hub",
    )
    parser.add_argument("--model", help="key of the study's model that --adapter was trained on")


def catalogue_from_options(options: argparse.Namespace) -> tuple[str, Catalogue]:
    """The study's name and catalogue. Results and report default to Snakemake's locations."""
    if options.model and not options.adapter:
        raise UserError(
            f"--model: given without --adapter ({options.model}). Fix: add --adapter, or leave --model out."
        )
    study = load_study(options.study or _configured_study())
    catalogue = read_catalogue(
        study,
        results=options.results or Path("results") / study.name,
        report=options.report or Path("reports") / study.name / "report.html",
        run=options.run,
        adapter=options.adapter,
        model=options.model,
    )
    return study.name, catalogue


def _configured_study() -> str:
    return yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))["study"]
