"""Answers side by side: which runs are shown, what is measured, code as code, torn files."""

import dataclasses
import json
from pathlib import Path

import pytest

from loragrid.reporting.answers.word_marks import pieces
from loragrid.reporting.page import Material
from loragrid.reporting.side_by_side import read_answers, shown_runs, side_by_side
from tests.fixtures import synthetic
from tests.fixtures.pages import build_page, compare_and_report, read_material

OUTPUT = "<b>bold</b>\n```python\nx = 1 < 2\n```"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Material, str]:
    """A compared study with 22 prompts, whose runs are called by their subjects, and its page."""
    folder = tmp_path_factory.mktemp("side")
    study = synthetic.make_study(folder)
    page = build_page(folder, study=study, items=40, prompts=22, output=OUTPUT)
    material = read_material(study, folder / "results")
    labels = {outcome.subject: outcome.subject for outcome in material.outcomes}
    return dataclasses.replace(material, compared=dataclasses.replace(material.compared, labels=labels)), page


def with_answers(material: Material, folder: Path, change) -> Material:
    """The material with answers in `folder`, where `change` has changed each subject's rows."""
    for scored in (material.results / "score").iterdir():
        rows = change(scored.name, read_answers(scored / "answers.jsonl"))
        (folder / "score" / scored.name).mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "score" / scored.name / "answers.jsonl").write_text(text)
    return dataclasses.replace(material, results=folder)


def test_the_base_and_the_chosen_runs_are_side_by_side(made) -> None:
    material, _ = made
    runs = shown_runs(material)
    assert runs[0] == material.compared.base_case_runs[0] and len(runs) == 3
    # Answers of other models say nothing about settings.
    assert len({outcome.base for outcome in material.outcomes if outcome.subject in runs}) == 1
    section = side_by_side(material)
    assert len(section["prompts"]) == 22
    assert next(answer["label"] for answer in section["prompts"][0]["answers"]).startswith("base-")
    base, *tuned = (row["memory"] for row in section["means"])
    assert base == "+5 points before any training"
    # The trained wordings are as much easier for the base.
    assert all(": can’t tell" in text for text in tuned)


@pytest.mark.parametrize("trained", [0, 10])
def test_only_what_was_trained_on_can_be_memorised(made, tmp_path: Path, trained: int) -> None:
    def mark_trained(_: str, rows: list[dict]) -> list[dict]:
        return [row | {"in_training": number < trained} for number, row in enumerate(rows)]

    section = side_by_side(with_answers(made[0], tmp_path, mark_trained))
    assert section["trained"] == trained == sum(prompt["trained"] for prompt in section["prompts"])
    memory = [row["memory"] for row in section["means"]]
    assert all(text == "–" for text in memory) if not trained else memory[0].startswith("+5 points")


@pytest.mark.parametrize("gained, word", [(0.2, "partly memorised"), (-0.2, "the rephrased wording gained more")])
def test_memorised_is_what_the_base_does_not_show(made, tmp_path: Path, gained: float, word: str) -> None:
    material, _ = made
    case = material.compared.base_case_runs[0]

    def gain(subject: str, rows: list[dict]) -> list[dict]:
        for number, row in enumerate(rows):
            if subject == case:
                row["original"]["similarity"] += gained + 0.01 * (number % 5)
        return rows

    section = side_by_side(with_answers(material, tmp_path, gain))
    assert word in next(row["memory"] for row in section["means"] if row["label"] == case)


def test_answers_are_shown_as_text_and_code(made) -> None:
    text = made[1]
    assert "&lt;b&gt;bold&lt;/b&gt;" in text and "<b>bold" not in text
    assert "<code>x = 1 &lt; 2</code>" in text


def test_a_megabyte_of_answer_is_cut_with_a_note(tmp_path: Path) -> None:
    text = build_page(tmp_path, items=20, prompts=2, output="<script>" * 130_000)
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


def test_torn_lines_are_skipped(tmp_path: Path) -> None:
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
    assert "leaves no room" in compare_and_report(study, tmp_path)
