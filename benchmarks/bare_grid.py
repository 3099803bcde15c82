"""The bare grid for benchmarks/scale.py: the jobs and files of a study, with `touch` instead of every stage."""

import os
from collections.abc import Sequence
from pathlib import Path

from loragrid.paths import ROOT

STAGES = """
RUNS = {runs!r}
rule all:
    input: "reports/report.html"
rule prepare_data:
    output: "results/data/card.json"
    {prepare_data}shell: "touch {{output}}"
rule train:
    input: "results/data/card.json"
    output: "results/train/{{run}}/record.json"
    {train}shell: "touch {{output}}"
rule score_base:
    input: "results/data/card.json"
    output: "results/score/base/score.json"
    {score_base}shell: "touch {{output}}"
rule score:
    input: "results/data/card.json", "results/train/{{run}}/record.json"
    output: "results/score/{{run}}/score.json"
    {score}shell: "touch {{output}}"
rule compare:
    input: "results/score/base/score.json", expand("results/score/{{run}}/score.json", run=RUNS)
    output: "results/compare/compare.json"
    {compare}shell: "touch {{output}}"
rule report:
    input: "results/compare/compare.json"
    output: "reports/report.html"
    {report}shell: "touch {{output}}"
"""
# Directives of a rule that passes Snakemake's linter and runs on a cluster.
DIRECTIVES = """log: "logs/{name}.log"
    benchmark: "benchmarks/{name}.tsv"
    conda: "{environment}"
    threads: 1
    resources: mem_mb=2000, runtime=60
    params: code="0"
    """


def bare_snakefile(runs: Sequence[str], *, linted: bool) -> str:
    """The same grid without a study file: rules with input, output and `touch`, or with all directives of a linted rule."""
    names = {"train": "train/{run}", "score": "score/{run}"}
    extras = {
        rule: DIRECTIVES.format(name=names.get(rule, rule), environment=ROOT / "environment.yml") if linted else ""
        for rule in ("prepare_data", "train", "score_base", "score", "compare", "report")
    }
    return STAGES.format(runs=list(runs), **extras)


def finish_bare(folder: Path, runs: Sequence[str]) -> None:
    """Make the files of a finished bare grid."""
    results = folder / "results"
    steps = [
        [results / "data" / "card.json"],
        [results / "train" / name / "record.json" for name in runs],
        [results / "score" / name / "score.json" for name in ("base", *runs)],
        [results / "compare" / "compare.json"],
        [folder / "reports" / "report.html"],
    ]
    touch(steps)


def touch(steps: list[list[Path]]) -> None:
    """Make empty files; those of each step are ten seconds newer than those of the step before."""
    for age, files in enumerate(steps):
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            for path in (file, file.parent):
                os.utime(path, (1.7e9 + 10 * age, 1.7e9 + 10 * age))
