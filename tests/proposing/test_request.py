"""What a user may ask of a new study, and the one line that answers a slip."""

from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.proposing.request import Request, card_key, key_of, learning_rates, study_columns


def request(**given: str) -> Request:
    return Request(**{"data": "my.csv", "model": "owner/name", "name": "mine"} | given)


def test_data_and_model_are_paths_or_hub_ids(tmp_path: Path) -> None:
    (tmp_path / "my.csv").touch()
    assert request(data=f"{tmp_path}/my.csv").data_source == {"path": f"{tmp_path}/my.csv"}
    assert request(model="resources/models/llama-s").model_entry == {"path": "resources/models/llama-s"}
    assert request().model_entry == {"hub": "owner/name"}
    of_hub = {"hub": "owner/data", "revision": "main", "split": "test"}
    assert request(data="owner/data", split="test").data_source == of_hub


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("my.csw", r"DATA: nothing is there \(.*/my\.csw\)\. Fix: write .*/my\.csv\."),
        ("other/rows.csv", r"DATA: nothing is there .*Fix: give a file, a folder, or a hub id such as owner/name\."),
    ],
)
def test_data_that_are_not_there_are_named_with_the_nearest_name(tmp_path: Path, name: str, line: str) -> None:
    (tmp_path / "my.csv").touch()
    with pytest.raises(UserError, match=line):
        _ = request(data=f"{tmp_path}/{name}").data_source


def test_a_slip_that_would_pass_in_silence_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "my.csv").touch()
    with pytest.raises(UserError, match=r"SPLIT: only a data set of the hub has splits \(test\)\. Fix: "):
        _ = request(data=f"{tmp_path}/my.csv", split="test").data_source
    for place in (f"{tmp_path}/my.csv", str(tmp_path)):
        with pytest.raises(UserError, match=r"MODEL: not a model folder, without a config\.json \(.*\)\. Fix: give"):
            _ = request(model=place).model_entry
    with pytest.raises(UserError, match=r"COLUMNS: a column with two uses \(answer\)\. Fix: "):
        study_columns("prompt=answer reply=answer")


def test_a_path_is_no_hub_id() -> None:
    with pytest.raises(UserError, match="DATA: nothing is there"):
        _ = request(data="data/rows.csv").data_source


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("/home/me/My Data (2).csv.gz", "my-data-2"),
        ("owner/SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
        ("folder/", "folder"),
        ("…/日本語.jsonl", "mine"),
        ("a" * 300 + ".csv", "a" * 40),
    ],
)
def test_a_key_is_made_of_any_name(text: str, key: str) -> None:
    assert key_of(text) == key


def test_learning_rates_are_numbers_in_order() -> None:
    assert learning_rates("1e-3 1e-4, 2e-4") == (1e-4, 2e-4, 1e-3)
    assert learning_rates(None) == learning_rates("") == ()
    with pytest.raises(UserError, match=r"LR: not a learning rate \('fast'\)\. Fix: "):
        learning_rates("fast")
    with pytest.raises(UserError, match=r"LR: not between 0 and 10 \(-1\)\. Fix: "):
        learning_rates("-1 nan")


def test_cards_and_columns_are_checked() -> None:
    assert card_key("t4") == "T4" and card_key(None) is None
    with pytest.raises(UserError, match=r"CARD: not in config/cards\.yaml \('T5'\)\. Fix: use one of T4, "):
        card_key("T5")
    assert study_columns('prompt="die frage" reply=antwort') == {"prompt": "die frage", "reply": "antwort"}
    with pytest.raises(UserError, match=r"COLUMNS: not a use and its column \('frage'\)\. Fix: write "):
        study_columns("frage antwort")
    with pytest.raises(UserError, match=r"COLUMNS: not a use \('answer'\)\. Fix: use one of prompt, reply"):
        study_columns("prompt=frage answer=antwort")
