"""The complete study file that a run of the workflow writes."""

from pathlib import Path

import pytest
import yaml

from loragrid.paths import ROOT
from loragrid.study.study_file import load_study
from loragrid.workflow.complete_study import write_complete_study

STUDIES = sorted(file.stem for file in (ROOT / "config" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("name", STUDIES)
def test_the_complete_file_makes_the_same_runs(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    file = write_complete_study(study, tmp_path)
    assert file == tmp_path / "study.yaml" and file.read_text().startswith("# The complete study file")
    again = load_study(str(file))
    assert [cell.run for cell in again.cells] == [cell.run for cell in study.cells]
    assert [cell.settings for cell in again.cells] == [cell.settings for cell in study.cells]
    assert again.yaml == study.yaml and list(again.adopted) == list(study.adopted)
    # It says every setting, and names no place of this machine.
    written = yaml.safe_load(file.read_text())
    assert written["base_case"]["warmup"] and written["training"]["save_minutes"] and str(ROOT) not in file.read_text()


def test_methods_without_some_settings_are_complete_too(toy_llama: Path, tmp_path: Path) -> None:
    source = {"generator": "running_plans", "rows": 50, "seed": 1}
    grid = {"axes": {"method": ["full", "lora_plus", "ia3"]}, "cells": {"small": {"batch": [1, 1]}}}
    base = {"method": "full", "precision": "32bit", "learning_rate": 1e-5}
    settings = {"title": "A toy", "data": {"rows": {"source": source}}, "models": {"toy": {"path": str(toy_llama)}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings | {"base_case": base, "grid": grid}))
    study = load_study(str(tmp_path / "mine.yaml"))
    again = load_study(str(write_complete_study(study, tmp_path)))
    assert [cell.run for cell in again.cells] == [cell.run for cell in study.cells]
