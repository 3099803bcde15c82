"""The ids of the shipped studies. A changed id trains a run again, and orphans the results that users have."""

import json
from pathlib import Path

import pytest

from loragrid.study.study_file import load_study

IDS = json.loads((Path(__file__).parent / "ids.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", IDS)
def test_shipped_studies_keep_their_ids(name: str) -> None:
    study = load_study(name)
    assert [cell.run for cell in study.cells] == IDS[name]["runs"]
    assert list(study.data_sets) == IDS[name]["data_sets"]
    assert list(study.bases) == IDS[name]["bases"]


def test_every_shipped_study_has_pinned_ids(root: Path) -> None:
    assert sorted(IDS) == sorted(file.stem for file in (root / "config" / "studies").glob("*.yaml"))
