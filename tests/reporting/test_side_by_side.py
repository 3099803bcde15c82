"""Answers beside each other: which runs, what is measured, code as code, torn files."""

import json
from pathlib import Path

import pytest

import compare
import report
from loragrid.records.outcomes import collect
from loragrid.reporting.side_by_side import choose, pieces, read_answers, side_by_side
from tests.fixtures import synthetic


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("side")
    study = synthetic.make_study(folder)
    synthetic.make_results(
        study, folder / "results", items=40, prompts=22, output="<b>bold</b>\n```python\nx = 1 < 2\n```"
    )
    summary = compare.compare(study=study, results=folder / "results", out=folder / "results/compare")
    return study, folder / "results", summary


def test_base_and_chosen_runs_stand_beside_each_other(made) -> None:
    study, results, summary = made
    outcomes = collect(study, results)
    labels = {o.subject: o.subject for o in outcomes}
    case = tuple(o.subject for o in outcomes if o.cell and not o.cell.departs)
    runs = choose(outcomes, summary["trade_offs"], case)
    assert runs[0] == case[0] and len(runs) == 3
    assert (
        len({o.base for o in outcomes if o.subject in runs}) == 1
    )  # answers of other models say nothing about settings
    section = side_by_side(results, outcomes, summary["trade_offs"], case, labels, alpha=0.05)
    assert len(section["prompts"]) == 22
    assert next(answer["label"] for answer in section["prompts"][0]["answers"]).startswith("base-")
    base, *tuned = (row["memory"] for row in section["means"])
    assert base == "+5 points before any training"
    assert all(": can’t tell" in text for text in tuned)  # the trained wordings are as much easier for the base


@pytest.mark.parametrize("trained", [0, 10])
def test_only_what_was_trained_on_can_be_memorised(made, tmp_path: Path, trained: int) -> None:
    study, results, summary = made
    outcomes = collect(study, results)
    for folder in (results / "score").iterdir():
        rows = read_answers(folder / "answers.jsonl")
        rows = [row | {"in_training": number < trained} for number, row in enumerate(rows)]
        (tmp_path / "score" / folder.name).mkdir(parents=True)
        (tmp_path / "score" / folder.name / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = {o.subject: o.subject for o in outcomes}
    case = tuple(o.subject for o in outcomes if o.cell and not o.cell.departs)
    section = side_by_side(tmp_path, outcomes, summary["trade_offs"], case, labels, alpha=0.05)
    assert section["trained"] == trained == sum(prompt["trained"] for prompt in section["prompts"])
    memory = [row["memory"] for row in section["means"]]
    assert all(text == "–" for text in memory) if not trained else memory[0].startswith("+5 points")


@pytest.mark.parametrize("gained, word", [(0.2, "memorised in part"), (-0.2, "the other wording gained more")])
def test_memorised_is_what_the_base_does_not_show(made, tmp_path: Path, gained: float, word: str) -> None:
    study, results, summary = made
    outcomes = collect(study, results)
    case = next(o.subject for o in outcomes if o.cell and not o.cell.departs)
    rows = read_answers(results / "score" / case / "answers.jsonl")
    for number, row in enumerate(rows):
        row["original"]["similarity"] += gained + 0.01 * (number % 5)
    (tmp_path / "score").mkdir()
    for folder in (results / "score").iterdir():
        (tmp_path / "score" / folder.name).mkdir()
        text = (folder / "answers.jsonl").read_text()
        if folder.name == case:
            text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "score" / folder.name / "answers.jsonl").write_text(text)
    labels = {o.subject: o.subject for o in outcomes}
    section = side_by_side(tmp_path, outcomes, summary["trade_offs"], (case,), labels, alpha=0.05)
    assert word in next(row["memory"] for row in section["means"] if row["label"] == case)


def test_answers_are_shown_as_text_and_code(made) -> None:
    study, results, _ = made
    report.report(study=study, results=results, out=results / "page/report.html")
    text = (results / "page/report.html").read_text()
    assert "&lt;b&gt;bold&lt;/b&gt;" in text and "<b>bold" not in text
    assert "<code>x = 1 &lt; 2</code>" in text


def test_a_megabyte_of_answer_is_cut_with_a_note(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", items=20, prompts=2, output="<script>" * 130_000)
    compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    report.report(study=study, results=tmp_path / "results", out=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 2_000_000 and "more characters]" in text and text.count("<script>") == 1


@pytest.mark.parametrize(
    "text, kinds",
    [
        ("plain", ["text"]),
        ("a\n```\nb\n```\nc", ["text", "code", "text"]),
        ("```python\nnever closed", ["code"]),
        ("inline ``` is text", ["text"]),
        ("", ["text"]),
    ],
)
def test_pieces(text: str, kinds: list[str]) -> None:
    assert [piece["kind"] for piece in pieces(text)] == kinds


def test_torn_lines_are_passed_over(tmp_path: Path) -> None:
    row = synthetic.answer_row(1, "x", 0.5)
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + '\n[1]\n{"id": 2, "refer')
    assert [found["id"] for found in read_answers(tmp_path / "a.jsonl")] == ["plan-1"]
    assert read_answers(tmp_path / "nowhere") == []


def test_a_prompt_that_did_not_fit_says_so(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", items=20, prompts=6)
    for path in (tmp_path / "results/score").glob("*/answers.jsonl"):
        rows = read_answers(path)
        empty = dict.fromkeys(rows[0]["prompt"]) | {"question": "long", "error": "leaves no room"}
        rows[0]["prompt"] = empty
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    report.report(study=study, results=tmp_path / "results", out=tmp_path / "report.html")
    assert "leaves no room" in (tmp_path / "report.html").read_text()
