"""What the data card warns of: rows left out, answers on both sides; and rows of several forms in one file."""

import re

import pytest

from loragrid.data.row_warnings import row_warnings
from loragrid.data.source_scan import SourceScans
from loragrid.errors import UserError
from tests.fixtures.chat_data import study_of, write_rows

ALPACA = {"instruction": "Who?", "output": "A long enough answer."}
MESSAGES = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Another answer."}]}


def facts(*, dropped: int = 0, read: int = 100, known: int = 0, heldout: int = 20) -> dict:
    reasons = {"empty reply": {"count": dropped, "first_rows": [1]}} if dropped else {}
    split = {"leaks": {"short_answers": known}, "heldout_rows": heldout}
    return {"rows_read": read, "dropped": reasons, "split": split}


@pytest.mark.parametrize(
    ("card", "warning"),
    [
        (facts(), None),
        (facts(dropped=10), None),
        (facts(dropped=11), r"11 of 100 rows \(11%\) cannot be trained on and were left out \(11 empty reply\)"),
        (facts(known=2), None),
        (facts(known=3), r"15% of the held-out rows have an answer under 20 characters that training has too"),
    ],
)
def test_what_is_worth_a_warning(card: dict, warning: str | None) -> None:
    found = row_warnings(card)
    assert len(found) == (warning is not None)
    assert warning is None or re.match(warning, found[0])


def test_a_source_in_two_forms_is_refused_wherever_the_second_begins(tmp_path) -> None:
    rows = [ALPACA] * 120 + [MESSAGES] * 180
    study = study_of(write_rows(tmp_path / "rows.jsonl", rows), tmp_path)
    message = r"mixes the formats alpaca and messages: 180 of its 300 rows .* \(row 121 is the first\)\. Fix: give each"
    with pytest.raises(UserError, match=message):
        SourceScans(tmp_path).scan(study.data["chat"])
    dropping = study_of(write_rows(tmp_path / "rows.jsonl", rows), tmp_path, bad_rows="drop")
    found = SourceScans(tmp_path).scan(dropping.data["chat"])
    assert found.dropped.as_dict() == {
        "row of another form: messages": {"count": 180, "first_rows": [121, 122, 123, 124, 125]}
    }


def test_too_few_rows_for_the_held_out_ones_are_explained(tmp_path) -> None:
    """The message names the rows that were read and why so few are left."""
    from loragrid.data.data_sets import DataSets

    rows = [{"instruction": f"Question {n}", "output": f"The answer of number {n}"} for n in range(10)]
    rows += [{"instruction": "Who?", "output": ""}] * 290
    study = study_of(write_rows(tmp_path / "rows.jsonl", rows), tmp_path, heldout_rows=40)
    message = (
        r"heldout\.rows: 40 is more than half of the 10 usable rows of 300 that were read, without 290 empty reply"
    )
    with pytest.raises(UserError, match=message):
        DataSets(study, SourceScans(tmp_path)).heldout_rows()
