"""Words that training changed, and similarities as marks."""

import json
from xml.etree import ElementTree

import pytest

from loragrid.paths import ROOT
from loragrid.reporting.answers.similarity_strip import END, LANE, WIDTH, mark, strip
from loragrid.reporting.answers.word_marks import MOST_CHARACTERS, is_tall, marked_pieces, pieces


def test_words_that_the_base_did_not_write_are_marked_and_code_is_not() -> None:
    base = "Run three days a week\nand rest well."
    found, differing = marked_pieces("Run four days a week\nand rest  well.\n```\nnew()\n```", base)
    assert differing == "1 of 8 words marked"
    marked = [("Run ", False), ("four", True), (" ", False), ("days a week\nand rest  well.", False)]
    assert found[0]["segments"] == marked
    assert marked_pieces(base, base)[1] == "no word differs from the base’s"
    assert found[1] == {"kind": "code", "text": "new()"}


def test_the_text_of_a_marked_answer_is_the_answer() -> None:
    text = "  Indented words, and <b>tags</b>\n\n  on lines  " + "again and again " * 300
    found, _ = marked_pieces(text, "words on lines again and again " * 200)
    assert "".join(part for part, _ in found[0]["segments"]) == found[0]["text"]
    assert len(found[0]["text"]) <= MOST_CHARACTERS


def test_another_answer_altogether_is_said_and_not_marked() -> None:
    found, differing = marked_pieces("one two three", "four five six")
    assert differing == "nearly all words differ from the base’s" and "segments" not in found[0]
    assert marked_pieces("", "four") == ([{"kind": "text", "text": "", "segments": []}], "")


@pytest.mark.parametrize(
    "text, tall", [("a few words", False), ("word " * 1000, True), ("```\n" + "x\n" * 30 + "```", True)]
)
def test_an_answer_of_a_thousand_words_scrolls_in_a_box(text: str, tall: bool) -> None:
    assert is_tall(pieces(text)) == tall


def test_similarities_are_marks_with_a_name() -> None:
    drawing = ElementTree.fromstring(strip([("base <b>", 0.0), ("tuned", 1.0), ("failed", None)]))
    assert drawing.get("aria-label") == "Similarity to the reference: base <b> 0%; tuned 100%"
    places = [one.get("transform").split(") ")[0] for one in drawing if one.get("transform")]
    # Each on a line of its own: equal similarities would cover each other.
    assert places == [f"translate({END:.1f} {LANE / 2:g}", f"translate({WIDTH - END:.1f} {1.5 * LANE:g}"]
    assert mark(0).count("cross") == 1 and mark(1) != mark(2)


def test_the_original_studys_example_is_the_first_of_t4() -> None:
    first = (ROOT / "config/prompts/t4.jsonl").read_text().splitlines()[0]
    assert "ternary operator" in json.loads(first)["prompt"]
