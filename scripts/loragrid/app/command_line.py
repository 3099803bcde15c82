"""The command-line options that say which study's models the app offers, for the app and for a copy of it."""

import argparse
from pathlib import Path

import yaml

from loragrid.app.catalogue import Catalogue, read_catalogue
from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.study_file import load_study


def add_catalogue_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `catalogue_from_options` reads."""
    parser.add_argument("--study", help="name or file of the study; the one in config/config.yaml if left out")
    parser.add_argument("--results", type=Path, help="folder of the study's results (results/STUDY)")
    parser.add_argument("--report", type=Path, help="the study's report (reports/STUDY/report.html)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--run", help="run to start with; the best of the comparison if left out")
    which.add_argument("--adapter", help="LoRA adapter to start with: a folder, or owner/name[@revision] on the hub")
    parser.add_argument("--model", help="key of the study's model that --adapter belongs to")


def catalogue_from_options(options: argparse.Namespace) -> tuple[str, Catalogue]:
    """The study's name and catalogue, its results and report where Snakemake puts them unless options say otherwise."""
    if options.model and not options.adapter:
        raise UserError("--model says what --adapter belongs to: give --adapter, or leave --model out")
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
