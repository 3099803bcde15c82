"""The texts of prepared rows, read again from their sources."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from loragrid.data.contamination.training_texts import training_texts
from loragrid.errors import UserError
from loragrid.records.seal import break_seal
from loragrid.study.study_file import Study
from tests.fixtures.chat_data import as_source, prepare_all, read_rows, sentence, study_of_sets, talk, write_rows


def conversations(seed: int, count: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [talk(sentence(rng, 12), sentence(rng, 6), sentence(rng, 6)) for _ in range(count)]


def text_of(row: dict[str, Any]) -> str:
    return "\n".join(turn["value"] for turn in row["conversations"])


def texts_of(study: Study, folder: Path) -> dict[int, str]:
    return dict(training_texts(study, folder, json.loads((folder / "card.json").read_text())))


def test_the_rows_of_a_mix_are_those_that_are_trained_on(tmp_path: Path, toy_llama: Path) -> None:
    rows = {"chat": conversations(1, 60), "code": conversations(2, 40)}
    data = {name: {"source": as_source(write_rows(tmp_path / f"{name}.jsonl", rows[name]))} for name in rows}
    data["both"] = {"mix": {"chat": 1, "code": 1}, "rows": 30}
    # Rows are cut at 120 tokens; their texts are whole.
    study = study_of_sets(
        data, toy_llama, heldout={"set": "chat"}, base_case={"data": "both", "max_length_tokens": 120}
    )
    _, folders = prepare_all(study, tmp_path)
    texts = texts_of(study, folders["both", "m"])
    card = json.loads((folders["both", "m"] / "card.json").read_text())
    first = {part["set"]: part["first_row"] for part in card["sources"]}
    everything = {first[name] + place: text_of(row) for name in rows for place, row in enumerate(rows[name])}
    numbers = [row["row"] for row in read_rows(folders["both", "m"], "train")]
    assert len(numbers) == 30 and texts == {number: everything[number] for number in numbers}


def test_the_demo_s_generated_rows_and_rows_that_have_changed(tmp_path: Path, toy_llama: Path) -> None:
    generated = {"generator": "running_plans", "rows": 60, "seed": 1}
    study = study_of_sets({"plans": {"source": generated}}, toy_llama)
    _, folders = prepare_all(study, tmp_path)
    (folder,) = folders.values()
    texts = texts_of(study, folder)
    assert len(texts) == len(read_rows(folder, "train")) and all("week" in text.lower() for text in texts.values())
    card = json.loads((folder / "card.json").read_text())
    card["sources"][0]["source"]["sha256"] = "0" * 64
    with pytest.raises(UserError, match=r"have changed since they were prepared \(sha256 .*Fix: run prepare_data"):
        next(training_texts(study, folder, card))
    (folder / "train.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"train\.parquet: changed since it was written"):
        next(training_texts(study, folder, card))
    break_seal(folder)
    (folder / "card.json").write_text("{}")  # which says no more that there is a seal
    with pytest.raises(UserError, match=r"train\.parquet: not readable"):
        next(training_texts(study, folder, card))
