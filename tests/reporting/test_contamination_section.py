"""The page's words on contaminated items."""

from typing import Any

import pytest

from loragrid.reporting.contamination_section import example_text, score_text, shared_text, unchecked_text

FACTS = {"items": 100, "too_short": 0, "compared_whole": 0, "contaminated_8": 10, "contaminated_13": 4, "examples": []}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "10 of 100 items share an 8-gram with training rows (4 a 13-gram)"),
        ({"contaminated_8": 0, "contaminated_13": 0}, "0 of 100 items share an 8-gram with training rows"),
        ({"contaminated_8": 1}, "1 of 100 items shares an 8-gram with training rows (4 a 13-gram)"),
        ({"items": 1, "contaminated_8": 1}, "1 of 1 item shares an 8-gram with training rows (4 a 13-gram)"),
    ],
)
def test_how_many_of_how_many_items_are_shared(changes: dict[str, int], text: str) -> None:
    assert shared_text(FACTS | changes) == text


def test_what_could_not_be_checked_is_named() -> None:
    assert unchecked_text(FACTS) == ""
    found = unchecked_text(FACTS | {"too_short": 1200, "compared_whole": 3})
    assert found == "1\u202f200 too short to check, 3 compared as a whole"


def test_an_example_shows_characters_that_hide_text() -> None:
    assert example_text(FACTS) == ""
    match = {"item": "a\u202eb", "row": 1234, "ngram": "one two"}
    assert example_text(FACTS | {"examples": [match, match]}) == "Item a[U+202E]b and row 1\u202f234: “one two”"


ROW = {"value": 0.42, "other_value": 0.40, "other_items": 90, "low": 0.3, "high": 0.5, "difference": -0.02}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "42%; 40% on the 90 other items (\u22122 points; 30% to 50%)"),
        ({"other_items": 1, "low": None, "high": None}, "42%; 40% on the 1 other item (\u22122 points)"),
        (dict.fromkeys(("other_value", "low", "high", "difference")), "42%; no other item is left"),
    ],
)
def test_the_score_on_the_other_items_stands_beside_that_on_all(changes: dict[str, Any], text: str) -> None:
    assert score_text(ROW | changes, "share") == text
