"""Compare writes only codes and numbers, so rewording a sentence re-runs the report and nothing else."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from loragrid.paths import SCRIPTS
from loragrid.runtime import code_digest

# A module of sentences → words in it.
REWORDED = {
    "loragrid/reporting/sentences/causes.py": "training loss rose from",
    "loragrid/reporting/sentences/limits.py": "in common, too few to prove any difference",
    "loragrid/reporting/sentences/scorecard.py": "lowest held-out loss",
    "loragrid/reporting/sentences/ship.py": "gain not proved",
    "loragrid/reporting/sentences/findings.py": "beat {their} untrained base",
    "loragrid/formatting.py": "none of any size",
}


def test_other_words_run_the_report_again_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "SCRIPTS", tmp_path / "scripts")
    monkeypatch.setattr(code_digest, "_cache_file", lambda: tmp_path / "kept.json")
    # Without its cache the function reads the files again at each call.
    digest = code_digest.code_digest.__wrapped__
    stages = ("prepare_data", "train", "score", "compare", "report")
    before = {stage: digest(stage) for stage in stages}
    for module, words in REWORDED.items():
        path = tmp_path / "scripts" / module
        text = path.read_text()
        assert words in text
        path.write_text(text.replace(words, f"in other words {words}"))
        assert [stage for stage in stages if digest(stage) != before[stage]] == ["report"]
        path.write_text(text)
    assert {stage: digest(stage) for stage in stages} == before


def test_compare_reaches_no_module_that_makes_sentences() -> None:
    reached = {path.relative_to(SCRIPTS).as_posix() for path in code_digest.modules_of(SCRIPTS / "compare.py")}
    assert "loragrid/comparing/diagnosing/causes.py" in reached
    assert not [path for path in reached if path.startswith(("loragrid/reporting/", "loragrid/formatting"))]


def test_no_text_of_compare_json_is_a_sentence(made) -> None:
    """Codes have no spaces. The few texts with spaces are names of tests and verdicts, and lists of runs."""
    study, results, _ = made
    runs = {cell.run for cell in study.cells}
    text = (results / "compare" / "compare.json").read_text()
    strings = {string for string in _strings(json.loads(text)) if " " in string}
    strings = {string for string in strings if not set(string.split()) <= runs}
    assert strings <= {"can't tell", "don't ship", "not tested", "adapters differ"}
    names = {"can't tell", "adapters differ", "items and seeds", "exact McNemar", "t with item and seed variance"}
    names |= {"t over tasks", "sign-flip permutation", '"sign-flip permutation', ' tail by paired t"'}
    for name in ("comparisons", "axes"):
        with (results / "compare" / f"{name}.csv").open() as file:
            rows = csv.DictReader(file)
            # Runs of a setting are separated by spaces.
            cells = {
                cell for row in rows for column, text in row.items() if column != "runs" for cell in text.split(",")
            }
        assert {cell.strip() for cell in cells if " " in cell.strip()} <= {name.strip(' "') for name in names}


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [string for item in value.values() for string in _strings(item)]
    if isinstance(value, list):
        return [string for item in value for string in _strings(item)]
    return [value] if isinstance(value, str) else []
