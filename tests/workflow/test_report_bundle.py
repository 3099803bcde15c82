"""`snakemake --report` on a study that is trained and scored: only compare and report run, with captions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loragrid.paths import ROOT
from loragrid.study.study_file import load_study
from loragrid.study.training_sets import training_sets
from tests.fixtures import synthetic
from tests.fixtures.score_toys import write_model
from tests.fixtures.synthetic_records import write_contamination


def snakemake(folder: Path, study: Path, *options: str) -> str:
    """Snakemake's output; by modification times alone, since made-up results have no history of jobs."""
    command = [sys.executable, "-m", "snakemake", "--directory", str(folder), "--config", f"study={study}", *options]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.long
def test_bundle_with_captions_and_categories(tmp_path: Path, toy_llama: Path) -> None:
    study = synthetic.make_study(tmp_path)
    for key in study.models:
        write_model(toy_llama, tmp_path / "models" / key, seed=1)
    study = load_study(str(study.path))
    synthetic.make_results(study, tmp_path / "results" / study.name, items=30)
    for data in training_sets(study).values():
        write_contamination(tmp_path / "results" / study.name, data, running_plan=[])
    said = snakemake(tmp_path, study.path, "--cores", "1", "--rerun-triggers", "mtime")
    assert "compared: runs scored" in said and "wrote the page" in said and "trained" not in said
    assert (tmp_path / "reports" / study.name / "report.html").is_file()
    snakemake(tmp_path, study.path, "--report", str(tmp_path / "bundle.html"))
    bundle = (tmp_path / "bundle.html").read_text()
    for part in ("verdict first", "Pictures", "Tables", "loss_learning_rate.svg", "comparisons.csv", "light colours"):
        assert part in bundle
