"""Preparing real conversations: Alpaca, ShareGPT with tools, and a row with a missing turn."""

import json

import pytest
from pyarrow import parquet

from loragrid.data.training_data import rows_sha256
from loragrid.errors import UserError
from tests.fixtures.chat_data import PLAIN, good_rows, prepare, study_of, write_rows


@pytest.fixture()
def stories(real, tmp_path):
    (tmp_path / "plain.jinja").write_text(PLAIN)

    def build(rows, **data):
        settings = {"template": tmp_path / "plain.jinja", "base_case": {"max_length_tokens": 384}}
        return study_of(rows, real / "stories260k", **settings, **data)

    return build


def test_real_alpaca(real, stories, tmp_path):
    card = prepare(stories(real / "chat" / "alpaca.json", heldout_rows=60), tmp_path / "out")
    assert (card["format"], card["rows_read"], card["duplicates_removed"]["count"]) == ("alpaca", 999, 14)
    assert card["split"]["heldout_rows"] + card["split"]["train_rows"] == card["rows_kept"] > 900
    assert card["split"]["leaks"]["answers"] == card["split"]["leaks"]["prompts"] == 0
    assert card["truncated"]["count"] > 100
    assert rows_sha256(parquet.read_table(tmp_path / "out" / "train.parquet")) == card["fingerprint"]


def test_real_tool_conversations(real, stories, tmp_path):
    card = prepare(stories(real / "chat" / "sharegpt_tools.json", heldout_rows=20), tmp_path / "out")
    assert card["format"] == "sharegpt" and card["split"]["largest_group"] > 10
    assert card["split"]["leaks"] == {"answers": 0, "prompts": 0, "short_answers": 0}
    assert any("tools of" in note for note in card["notes"])


def test_real_missing_turn_is_counted(real, stories, tmp_path):
    """A conversation without one of its turns and the complete version of it, among others."""
    chats = [json.loads((real / "chat" / f"sharegpt_{name}.json").read_text()) for name in ("missing_turn", "long")]
    path = write_rows(tmp_path / "rows.jsonl", [*chats, *good_rows()])
    card = prepare(stories(path), tmp_path / "out")
    assert card["dropped"] == {"empty reply": {"count": 1, "first_rows": [1]}}
    assert card["rows_kept"] == 41
    with pytest.raises(UserError, match=r"missing_turn\.json: none of its 1 rows .*1 empty reply \(row 1\)"):
        prepare(stories(real / "chat" / "sharegpt_missing_turn.json"), tmp_path / "out2")
