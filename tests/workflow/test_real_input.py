"""The study on models and data from outside this project, if ../shared/real beside the checkout has them."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from loragrid.paths import ROOT
from loragrid.study.study_file import Study, load_study
from prepare_data import prepare_data
from train import train_run

pytestmark = pytest.mark.usefixtures("warm")

STUDY = ROOT / "tests" / "fixtures" / "real" / "stories260k.yaml"


def variant(folder: Path, name: str, change: dict[str, dict]) -> Path:
    """The real study with some sections changed, its paths made absolute, in a file of its own."""
    settings = load_study(str(STUDY)).yaml
    for section, keys in change.items():
        settings[section] |= keys
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def prepare(study: Study, folder: Path) -> dict:
    return prepare_data(study=study, data_id=next(iter(study.data_sets)), out=folder)


@pytest.mark.long
def test_a_real_llama_learns_alpaca_and_is_scored_on_blimp(real: Path, tmp_path: Path) -> None:
    sets = load_study(str(STUDY)).yaml["scoring"]["retention"]
    study = variant(
        tmp_path,
        "short",
        {
            "base_case": {"budget": {"steps": 12}, "evaluations": 1},
            "scoring": {
                "retention": [path for path in sets if "causative" in path or "participle" in path],
                "limit": 60,
            },
        },
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--directory", tmp_path, "--config", f"study={study}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    runs = pd.read_csv(tmp_path / "results/short/compare/runs.csv")
    assert sorted(runs["status"]) == ["scored"] * 4
    assert sorted(runs["learning_rate"].dropna()) == [3.0e-4, 3.0e-3, 3.0e-2]
    comparisons = pd.read_csv(tmp_path / "results/short/compare/comparisons.csv")
    # Two BLiMP sets, what was forgotten over both, and the held-out loss; each of three adapters.
    assert comparisons["task"].nunique() == 4 and len(comparisons) == 12
    learned = comparisons[comparisons["task"] == "heldout_loss"]
    assert (learned["verdict"] == "better").any()
    participle = comparisons[comparisons["task"] == "blimp_irregular_past_participle_verbs"]
    assert (participle["reference_score"] > 0.8).all(), "the real base knows participles, far above chance"
    assert "TinyStories" in (tmp_path / "reports/short/report.html").read_text()


def test_conversations_with_tool_calls_are_trained_on(real: Path, tmp_path: Path) -> None:
    path = variant(
        tmp_path,
        "tools",
        {
            "data": {"rows": {"source": {"path": str(real / "chat/sharegpt_tools.json")}}},
            "heldout": {"set": "rows", "rows": 20},
            "base_case": {"data": "rows", "budget": {"steps": 3}},
        },
    )
    study = load_study(str(path))
    card = prepare(study, tmp_path / "data")
    assert card["format"] == "sharegpt"
    assert card["rows_read"] == 300 and card["rows_kept"] > 200
    record = train_run(study=study, cell=study.cells[0], data_folder=tmp_path / "data", out=tmp_path / "run")
    assert record.status == "finished" and record.steps == 3
    assert record.final_heldout_loss < record.first_heldout_loss


def test_a_conversation_with_an_empty_reply_is_counted(real: Path, tmp_path: Path) -> None:
    broken = json.loads((real / "chat/sharegpt_missing_turn.json").read_text())
    rows = [broken, *json.loads((real / "chat/sharegpt_tools.json").read_text())]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    path = variant(
        tmp_path,
        "missing",
        {
            "data": {"rows": {"source": {"path": "rows.json"}}},
            "heldout": {"set": "rows", "rows": 20},
            "base_case": {"data": "rows"},
        },
    )
    card = prepare(load_study(str(path)), tmp_path / "data")
    reasons = {reason: found for reason, found in card["dropped"].items() if 1 in found["first_rows"]}
    assert len(reasons) == 1 and "reply" in next(iter(reasons))
