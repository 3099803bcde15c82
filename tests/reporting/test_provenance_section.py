"""How to repeat a study, runs trained by other code, notes of backends, assumptions."""

import dataclasses
import json
import re
import types
from pathlib import Path

from loragrid.reporting.provenance_section import assumptions, load_lines, reproduce
from loragrid.runtime.atomic_files import sha256_file
from loragrid.study.study_file import load_study
from tests.fixtures import synthetic
from tests.fixtures.pages import build_page, compare_and_report


def test_the_commands_that_repeat_a_study_work_in_a_checkout(tmp_path: Path) -> None:
    page = build_page(tmp_path)
    (commands,) = re.findall(r"<pre>(git checkout [^<]*)</pre>", page)
    (lines,) = re.findall(r"<pre>(from peft [^<]*)</pre>", page)
    assert re.fullmatch(r"results/made/train/\S+/adapter", lines.splitlines()[1].split("&#34;")[1])
    digest = sha256_file(tmp_path / "made.yaml")
    assert commands.splitlines() == [
        f"git checkout {synthetic.GIT['commit']}",
        "make .venv/.study  # the packages, at pinned versions",
        ".venv/bin/snakemake --cores 1 --config study=made.yaml",
        f"# made.yaml belongs in this folder, with the files that it names, and has the SHA-256 {digest}",
    ]
    shipped = dataclasses.replace(load_study("demo"), yaml={})
    material = types.SimpleNamespace(study=shipped, outcomes=[])
    assert reproduce(material).splitlines()[1] == ".venv/bin/snakemake --cores 1 --config study=demo"


def test_the_lines_load_a_run_with_weights() -> None:
    methods = {"a": "none", "b": "full"}
    outcomes = [
        types.SimpleNamespace(subject=name, record=types.SimpleNamespace(status="finished", method=method))
        for name, method in methods.items()
    ]
    compared = types.SimpleNamespace(summary={"trade_offs": []}, adopted={})
    study = types.SimpleNamespace(name="made")
    material = types.SimpleNamespace(study=study, outcomes=outcomes, compared=compared)
    assert 'folder = "results/made/train/b/model"' in load_lines(material)
    material.outcomes = outcomes[:1]
    assert load_lines(material) == ""


def test_runs_trained_by_other_code_are_marked(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    path = tmp_path / "results/train" / study.cells[2].run / "record.json"
    path.write_text(path.read_text().replace("c0de" * 4, "dead" * 4))
    assert compare_and_report(study, tmp_path).count("different code</strong>") == 1


def test_notes_of_a_backend_are_shown_and_set_runs_apart(tmp_path: Path) -> None:
    """One run whose notes name another precision than the others' notes."""
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    for number, cell in enumerate(study.cells):
        path = tmp_path / "results/train" / cell.run / "record.json"
        if path.is_file():
            notes = [
                "unsloth: weights in bfloat16, trained in fp32" if number == 2 else "unsloth: <b>weights</b> in float16"
            ]
            path.write_text(json.dumps(json.loads(path.read_text()) | {"notes": notes}))
    text = compare_and_report(study, tmp_path)
    assert text.count("<small>unsloth: weights in bfloat16, trained in fp32</small>") == 1
    assert "&lt;b&gt;weights&lt;/b&gt; in float16" in text and "<b>weights</b>" not in text
    assert "Runs from different precisions of weights or training" in text
    assert "trained in fp32" in (tmp_path / "results/compare/runs.csv").read_text()


def test_assumptions_are_whole_sentences_from_code_tasks_and_study(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    with study.path.open("a") as file:
        file.write(
            "# ASSUME: the first line\n# goes on here\n\n# not here\nunused: 1  # ASSUME: beside a value\n# nor here\n"
        )
    material = types.SimpleNamespace(study=study, cards={"a": {"format": "sharegpt", "notes": []}})
    found = assumptions(material)
    of_study = [one["text"] for one in found if one["where"] == "made.yaml"]
    assert of_study == ["The first line goes on here.", "Beside a value."]
    assert any(one["where"].startswith("scripts/loragrid/data/") for one in found)
    assert all(one["text"].endswith((".", "!", "?")) for one in found)
    assert not any("Alpaca" in one["text"] for one in found), "the study has no such rows"
    material.cards["a"]["format"] = "alpaca"
    assert any("Alpaca" in one["text"] for one in assumptions(material))
