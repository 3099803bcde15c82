"""The data card's counts of single rows, in words."""

from loragrid.data.formats import conversation_formats, exchanges, marks, turns
from loragrid.reporting.sentences.row_notes import NOTES, row_notes, unused_fields


def test_every_note_of_a_row_has_a_sentence():
    codes = {conversation_formats.SYSTEM_TURN_WINS, marks.PART_WEIGHT, turns.MARKED_PROMPT}
    assert codes | {exchanges.PREFERENCE, exchanges.PLAIN_TEXT, exchanges.PROMPT_REPLIES} == set(NOTES)


def test_notes_name_their_rows():
    card = {
        "row_notes": {"plain_text": {"count": 1, "first_rows": [4]}, "new": {"count": 7, "first_rows": [1, 2, 3, 4, 5]}}
    }
    assert row_notes(card) == [
        "plain text in 1 row (4): it is trained as it is, without a chat template",
        "new: 7 rows (1, 2, 3, 4, 5 …)",
    ]
    assert row_notes({}) == []


def test_fields_that_are_not_used_are_listed_or_there_are_none():
    assert unused_fields({"unused_fields": {"id": 1200, "messages[].refusal": 1}}) == (
        "id (1\u202f200 rows), messages[].refusal (1 row)"
    )
    assert unused_fields({"unused_fields": {}}) == "none" and unused_fields({}) == "–"
