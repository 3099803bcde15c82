"""Every phase of a stage has lines that come while it takes long."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import compare
import report
import score
from loragrid.runtime import progress_lines
from loragrid.scoring.subjects import Subject
from loragrid.training import progress, run_session
from tests.fixtures import synthetic
from tests.fixtures.chat_data import good_rows, prepare, study_of, write_rows
from tests.fixtures.train_toys import make_toy
from tools import verify_results


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The beginnings of the lines that the test's work may print, in the order in which the work begins."""
    found: list[str] = []
    enter = progress_lines.ProgressLines.__enter__

    def entered(lines: Any) -> Any:
        found.append(lines.line().partition(" | ")[0])
        return enter(lines)

    monkeypatch.setattr(progress_lines.ProgressLines, "__enter__", entered)
    return found


def test_preparing_data(tmp_path: Path, toy_llama: Path, phases: list[str]) -> None:
    study = study_of(write_rows(tmp_path / "rows.jsonl", good_rows()), toy_llama)
    prepare(study, tmp_path / "out")
    (data,) = study.data_sets
    assert phases == [
        f"[{data}] reading and splitting the rows",
        f"[{data}] fetching and checking the model m",
        "[m] tokenising chat to train on: 0 of 35 rows",
        "[m] tokenising chat to hold out: 0 of 5 rows",
    ]


def test_training(
    tmp_path: Path, toy_llama: Path, phases: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """An update that takes long has lines too."""
    toy = make_toy(tmp_path, toy_llama, base_case__budget={"steps": 1}, base_case__evaluations=1)
    for module in (progress, run_session):
        monkeypatch.setattr(module, "REPORT_SECONDS", 0.02)
    record_update = progress.Progress.record_update

    def slowly(*arguments: Any, **named: Any) -> None:
        time.sleep(0.3)
        record_update(*arguments, **named)

    monkeypatch.setattr(progress.Progress, "record_update", slowly)
    toy.train(tmp_path / "run")
    assert phases[0] == f"[{toy.cell.run}] loading and saving"
    assert phases[1:] == [f"[{toy.cell.run}] held-out loss: 0 of 10 rows"] * 2
    said = capsys.readouterr().err
    assert said.count(f"[{toy.cell.run}] step 0/1 held-out ") > 3, said


def test_scoring(tmp_path: Path, toy_llama: Path, phases: list[str]) -> None:
    toy = make_toy(tmp_path, toy_llama, scoring={"target": ["heldout_loss"], "retention": [], "qualitative": None})
    base = next(iter(toy.study.bases))
    score.score_subjects(study=toy.study, subjects=[Subject(base, None, toy.data, tmp_path / "out")])
    assert phases == [
        "checking what is scored",
        "reading the tasks",
        "[toy] loading the model",
        f"[{base}] heldout_loss",
        f"[{base}] heldout_loss: 0 of 10 rows",
    ]


def call(main: Callable[[], None], *words: object) -> None:
    sys.argv = ["stage", *map(str, words)]
    main()


def test_comparing_drawing_and_verifying(tmp_path: Path, phases: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])
    for stage, name in ((compare, "compare"), (report, "report")):
        monkeypatch.setattr(stage, name, lambda **_: None)
    study, results = synthetic.make_study(tmp_path), tmp_path / "results" / "made"
    results.mkdir(parents=True)
    call(compare.main, "--study", study.path, "--results", results, "--out", results / "compare")
    call(report.main, "--study", study.path, "--results", results, "--out", tmp_path / "page" / "report.html")
    assert verify_results.verify(study, results)
    assert phases[:2] == ["[compare] comparing the runs", "[report] drawing the page"]
    assert phases[2].startswith(f"[{study.name}] comparing with the digests: 0 of ")
