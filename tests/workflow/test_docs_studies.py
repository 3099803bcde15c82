"""The examples of docs/own-study.md are study files that load."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from loragrid.paths import ROOT
from loragrid.study.study_file import load_study

BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs/own-study.md").read_text(), re.MULTILINE | re.DOTALL)
SMALLEST = yaml.safe_load(BLOCKS[0])


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`one` with the keys of `other`, maps merged."""
    both = one | other
    for key in one.keys() & other.keys():
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            both[key] = merged(one[key], other[key])
    return both


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_is_a_study(block: str, tmp_path: Path) -> None:
    (tmp_path / "mail.jsonl").write_text("")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(merged(SMALLEST, yaml.safe_load(block))))
    study = load_study(str(tmp_path / "mine.yaml"))
    # Every arm has both seeds.
    arms = {seed: [cell.arm for cell in study.cells if cell.settings.seed == seed] for seed in (1, 2)}
    assert arms[1] == arms[2] and len(arms[1]) >= 5


def test_the_first_example_has_about_fifteen_lines() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 15
