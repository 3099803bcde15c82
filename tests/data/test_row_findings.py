"""What a scan finds out about rows: speakers by name, fields that nothing reads, notes, and columns that no row has."""

from types import SimpleNamespace

import pytest

from loragrid.data.data_card import SHOWN_FIELDS, set_facts
from loragrid.data.row_counts import ReasonCounts
from loragrid.data.row_sets import Part, RowSet
from loragrid.data.source_scan import SourceScans
from loragrid.errors import UserError
from tests.fixtures.chat_data import study_of, write_rows


def scan(tmp_path, rows, **names):
    study = study_of(write_rows(tmp_path / "rows.jsonl", rows), tmp_path, **names)
    return SourceScans(tmp_path).scan(study.data["chat"])


def speak(*names, **fields):
    return {"conversations": [{"from": name, "value": f"{name} {n}"} for n, name in enumerate(names)]} | fields


def card(found):
    """The entries of the data card on the rows of one scan."""
    count = len(found.keys)
    tokenised = SimpleNamespace(dropped=ReasonCounts(), conversations=count, written=SimpleNamespace(rows=count))
    return set_facts(RowSet("chat", [Part("chat", 1.0, found, 0, found.keys)]), tokenised)


def test_unknown_speakers_are_named_with_their_rows(tmp_path):
    rows = [speak("human", "gpt"), speak("Seeker", "gpt"), speak("human", "oracle"), speak("Seeker", "gpt")]
    found = scan(tmp_path, rows)
    assert found.dropped.as_dict() == {
        'unknown role "Seeker"': {"count": 2, "first_rows": [2, 4]},
        'unknown role "oracle"': {"count": 1, "first_rows": [3]},
    }
    assert len(scan(tmp_path, rows, roles={"seeker": "user", "Oracle ": "assistant"}).keys) == 4


def test_more_than_twelve_unknown_speakers_are_counted_together(tmp_path):
    rows = [speak("human", "gpt")] + [speak("human", f"bird {n:02}") for n in range(15) for _ in range(1 + (n == 14))]
    dropped = scan(tmp_path, rows).dropped.as_dict()
    assert len(dropped) == 13 and sum(rows["count"] for rows in dropped.values()) == 16
    assert dropped['unknown role "bird 14"']["count"] == 2
    assert dropped["unknown role, 3 other names"] == {"count": 3, "first_rows": [13, 14, 15]}


def test_an_error_about_rows_of_unknown_speakers_says_how_to_map_them(tmp_path):
    with pytest.raises(
        UserError, match=r'2 unknown role "seeker" \(rows 1, 2\)\)\. Fix: map .* roles: {seeker: user}\.'
    ):
        scan(tmp_path, [speak("seeker", "gpt")] * 2)


def test_fields_and_notes_are_counted_in_the_card(tmp_path):
    rows = [speak("human", "gpt", id=n, system=["", "s"][n > 2]) for n in range(5)] + [
        speak("system", "human", "gpt", system="t")
    ]
    found = card(scan(tmp_path, rows))
    assert found["unused_fields"] == {"id": 5, "system": 1}
    assert found["row_notes"] == {"system_turn_wins": {"count": 1, "first_rows": [6]}}
    nothing = card(scan(tmp_path, [speak("human", "gpt")]))
    assert nothing["unused_fields"] == {} and nothing["row_notes"] == {}


def test_rare_fields_are_counted_together(tmp_path):
    rows = [speak("human", "gpt", common=1, **{f"field {n}": 1}) for n in range(SHOWN_FIELDS + 5)]
    fields = card(scan(tmp_path, rows))["unused_fields"]
    assert len(fields) == SHOWN_FIELDS + 1 and fields["common"] == SHOWN_FIELDS + 5 and fields["6 other fields"] == 6


def test_a_column_that_no_row_has_is_found_at_the_end_of_the_source(tmp_path):
    rows = [{"frage": "q", "antwort": f"a{n}"} for n in range(150)] + [{"frage": "q", "antwort": "a", "regel": "s"}]
    names = {"prompt": "frage", "reply": "antwort"}
    assert scan(tmp_path, rows, columns=names | {"system": "regel"}).keys[-1].turns == 3
    with pytest.raises(UserError, match=r"columns\.system: no row has this column \(regeln\); .* Fix: write regel\."):
        scan(tmp_path, rows, columns=names | {"system": "regeln"})


def test_plain_texts_are_near_to_each_other_by_their_text(tmp_path):
    found = scan(tmp_path, [{"text": "one text"}, {"text": "another text"}])
    assert [key.prompt for key in found.keys] == ["one text", "another text"]
