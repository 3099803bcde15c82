"""The stage from file to Parquet and card: reasons, sizes, digests, determinism and mistakes."""

import json
import subprocess
import sys

import pyarrow
import pytest
from pyarrow import parquet

from loragrid.data.reading.sources import open_source
from loragrid.data.training_data import load_training_data
from loragrid.errors import UserError
from loragrid.models.loading import load_tokenizer
from loragrid.runtime.atomic_files import sha256_file
from loragrid.study.sections import DataSource
from prepare_data import prepare_data
from tests.fixtures.chat_data import (
    PLAIN,
    as_source,
    good_rows,
    prepare,
    prepare_all,
    read_rows,
    study_of,
    study_of_sets,
    talk,
    write_rows,
)


def test_outputs_are_as_the_other_stages_read_them(tmp_path, toy_llama):
    study = study_of(write_rows(tmp_path / "rows.jsonl", good_rows()), toy_llama)
    card = prepare(study, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "card.json",
        "heldout.parquet",
        "row_groups.parquet",
        "sealed.json",
        "train.parquet",
    ]
    data = load_training_data(tmp_path / "out")
    assert data.card == card and card["fingerprint"] != card["heldout_fingerprint"]
    for side in ("train", "heldout"):
        table = parquet.read_table(tmp_path / "out" / f"{side}.parquet")
        tokens = pyarrow.list_(pyarrow.int32())
        assert table.schema.types == [pyarrow.int64(), tokens, tokens]
        assert table.schema.names == ["row", "input_ids", "labels"]
        assert table["row"].to_pylist() == sorted(table["row"].to_pylist())
        assert card["tokens"][side] == sum(len(ids) for ids in table["input_ids"].to_pylist())
    losses = sum(label != -100 for row in read_rows(tmp_path / "out", "train") for label in row["labels"])
    assert card["tokens"]["train_loss"] == losses
    assert (card["format"], card["rows_read"], card["rows_kept"]) == ("sharegpt", 40, 40)
    assert (card["split"]["train_rows"], card["split"]["heldout_rows"]) == (35, 5)
    assert card["split"]["leaks"] == {"answers": 0, "prompts": 0, "short_answers": 0}
    assert sum(card["length_histogram"]["counts"]) == 35
    assert len(card["length_histogram"]["edges"]) == len(card["length_histogram"]["counts"]) + 1
    tokenizer = load_tokenizer(study.models["m"])
    row = read_rows(tmp_path / "out", "train")[0]
    original = good_rows()[row["row"] - 1]["conversations"]
    messages = [{"role": r, "content": t["value"]} for r, t in zip(("user", "assistant"), original, strict=True)]
    assert tokenizer.decode(row["input_ids"]) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode([i for i in row["labels"] if i != -100]) == original[1]["value"] + "<|end|>"
    asked, answered = card["examples"][0]["segments"]
    assert asked[0].startswith("<s><|user|>Which tree") and asked[0].endswith("<|assistant|>") and not asked[1]
    assert answered == [original[1]["value"] + "<|end|>", True] and len(card["examples"]) == 3


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path, toy_llama):
    study = study_of(write_rows(tmp_path / "rows.jsonl", good_rows()), toy_llama)
    out = tmp_path / "out"
    prepare(study, out)
    (out / ".DS_Store").touch()
    prepare(study, out)  # an earlier result and hidden files are replaced
    (out / "thesis.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match=r"holds thesis\.txt, .*Fix: give another folder with --out"):
        prepare(study, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_same_input_same_bytes_and_a_killed_attempt_leaves_nothing(tmp_path, toy_llama):
    study = study_of(write_rows(tmp_path / "rows.jsonl", good_rows()), toy_llama)
    (tmp_path / "b" / ".preparing").mkdir(parents=True)
    (tmp_path / "b" / ".preparing" / "half.parquet").write_bytes(b"x")
    for out in ("a", "b"):
        prepare(study, tmp_path / out)
    written = ["card.json", "heldout.parquet", "row_groups.parquet", "sealed.json", "train.parquet"]
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == written


def test_the_split_is_the_same_for_every_model(tmp_path, toy_llama, toy_gemma):
    data = {"chat": {"source": as_source(write_rows(tmp_path / "rows.jsonl", good_rows()))}}
    study = study_of_sets(data, toy_llama, toy_gemma, axes={"model": [toy_llama.name, toy_gemma.name]})
    cards, folders = prepare_all(study, tmp_path)
    assert len(cards) == 2
    held = [[row["row"] for row in read_rows(folder, "heldout")] for folder in folders.values()]
    assert held[0] == held[1] and len({json.dumps(card["split"]) for card in cards.values()}) == 1


def test_every_reason_is_counted_with_its_rows(tmp_path, toy_llama):
    hi, hello = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello there, you."}
    bad = {
        "row is not an object": 7,
        "no conversation in the row": {"conversations": []},
        "not text": {"conversations": [hi, {"from": "gpt", "value": 4}]},
        'unknown role "bystander"': {"conversations": [hi, {"from": "bystander", "value": "x"}]},
        "empty reply": {"conversations": [hi, {"from": "gpt", "value": ""}]},
        "missing reply": {"conversations": [hi, hi, hello]},
        "empty prompt": {"conversations": [{"from": "human", "value": ""}, hello]},
        "no assistant turn": {"conversations": [hi]},
        "does not start with a user turn": {"conversations": [hello, hi, hello]},
        "tools cannot be read": {"conversations": [hi, hello], "tools": "{"},
        "nothing left after truncation": talk("long " * 60, "This comes after the two hundredth token."),
    }
    rows = good_rows() + list(bad.values()) + [bad["empty reply"]] * 6 + [good_rows()[3]]
    rows.append({"conversations": [*talk("What is the last tree?", "The last tree is an oak.")["conversations"], hi]})
    rows.append(talk("A tree of many words?", "tree " * 100))
    card = prepare(study_of(write_rows(tmp_path / "rows.jsonl", rows), toy_llama), tmp_path / "out")
    expected = {reason: {"count": 1, "first_rows": [number]} for number, reason in enumerate(bad, start=41)}
    expected["empty reply"] = {"count": 7, "first_rows": [45, 52, 53, 54, 55]}
    assert card["dropped"] == expected
    assert card["duplicates_removed"] == {"count": 1, "first_rows": [58]}
    assert card["cut_after_last_reply"] == {"count": 1, "first_rows": [59]}
    assert card["truncated"] == {"count": 1, "first_rows": [60]}
    assert card["rows_read"] == 60 and card["rows_kept"] == 42
    left_out = sum(reason["count"] for reason in card["dropped"].values()) + card["duplicates_removed"]["count"]
    assert left_out + card["rows_kept"] + card["sampled_out"] == card["rows_read"]


def test_rows_and_loss_on_all(tmp_path, toy_llama):
    path = write_rows(tmp_path / "rows.jsonl", good_rows())
    card = prepare(study_of(path, toy_llama, rows=20, base_case={"loss_on": "all"}), tmp_path / "out")
    assert (card["split"]["train_rows"], card["split"]["heldout_rows"]) == (20, 5)
    assert (card["rows_kept"], card["sampled_out"]) == (25, 15)
    row = read_rows(tmp_path / "out", "train")[0]
    assert row["labels"] == [-100, *row["input_ids"][1:]]


def test_unknown_and_broken_characters_are_counted(tmp_path, real):
    rows = [*good_rows(), talk("What is \N{REPLACEMENT CHARACTER}?", "It is a broken character, they say.")]
    template = tmp_path / "plain.jinja"
    template.write_text(PLAIN)
    study = study_of(write_rows(tmp_path / "rows.jsonl", rows), real / "stories260k", template=template)
    card = prepare(study, tmp_path / "out")
    assert card["broken_characters"] == {"count": 1, "first_rows": [41]}
    assert card["tokens"]["unknown_share"] == card["tokens"]["unknown"] / (
        card["tokens"]["train"] + card["tokens"]["heldout"]
    )


def test_mistakes_in_settings_are_user_errors(tmp_path, toy_llama):
    path = write_rows(tmp_path / "rows.jsonl", good_rows(8))
    with pytest.raises(UserError, match="does not exist"):
        open_source(DataSource(path=str(tmp_path / "none.json")), folder=tmp_path)
    with pytest.raises(UserError, match=r"heldout\.rows: 5 is more than half of the 8 usable rows"):
        prepare(study_of(path, toy_llama), tmp_path / "out")
    with pytest.raises(UserError, match=r"no row is left to train on for model m \(6 nothing left after truncation"):
        prepare(study_of(path, toy_llama, heldout_rows=2, base_case={"max_length_tokens": 8}), tmp_path / "out")
    with pytest.raises(UserError, match="the study has no data set m-0000"):
        prepare_data(study=study_of(path, toy_llama), data_id="m-0000", out=tmp_path / "out")


def test_the_fix_is_that_of_the_reason_for_which_most_rows_were_dropped(tmp_path, toy_llama):
    rows = []
    for number in range(8):
        turns = [
            {"role": role, "content": f"{role} {number} {turn}"} for turn in (1, 2) for role in ("user", "assistant")
        ]
        rows.append({"messages": [*turns[:-1], turns[-1] | {"weight": 0}]})
    study = study_of(
        write_rows(tmp_path / "r.jsonl", rows), toy_llama, heldout_rows=2, base_case={"loss_on": "last_reply"}
    )
    with pytest.raises(
        UserError, match=r"\(6 the last reply is marked not to train on .*\. Fix: use loss_on: assistant, or"
    ):
        prepare(study, tmp_path / "out")


def test_generated_rows_are_written_beside_the_data(tmp_path, toy_llama):
    source = {"generator": "running_plans", "rows": 60, "seed": 3}
    study = study_of(source, toy_llama, base_case={"max_length_tokens": 512})
    card = prepare(study, tmp_path / "a")
    lines = (tmp_path / "a" / "source.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == card["rows_read"] == 60 and all("conversations" in json.loads(line) for line in lines)
    assert card["format"] == "sharegpt" and card["dropped"] == {}
    assert card["source"] == source | {"sha256": sha256_file(tmp_path / "a" / "source.jsonl")}
    assert card["split"]["heldout_rows"] == 5
    assert prepare(study, tmp_path / "b") == card


def test_the_command_line_ends_in_one_line(tmp_path, root):
    """A study that does not exist: exit 2, one line on stderr, no traceback."""
    stage, out = root / "scripts" / "prepare_data.py", tmp_path / "out"
    command = [sys.executable, stage, "--study", "nosuch", "--data", "d", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: study 'nosuch'")
    assert not out.exists()


def test_a_length_beyond_the_model_s_context_is_refused(tmp_path, toy_llama):
    rows = write_rows(tmp_path / "rows.jsonl", good_rows())
    fits, longer = (study_of(rows, toy_llama, base_case={"max_length_tokens": length}) for length in (512, 513))
    assert prepare(fits, tmp_path / "out")["rows_kept"] == 40
    with pytest.raises(UserError, match=r"^max_length_tokens: 513 is longer than the context of model m, 512 tokens"):
        prepare(longer, tmp_path / "longer")


def test_a_package_that_training_needs_is_checked_before_any_work(tmp_path, toy_llama, monkeypatch):
    monkeypatch.setattr("loragrid.runtime.optional_packages.find_spec", lambda name: None)
    study = study_of(write_rows(tmp_path / "rows.jsonl", good_rows()), toy_llama)
    study.yaml["base_case"]["optimizer"] = "adamw_8bit"
    with pytest.raises(UserError, match=r"adamw_8bit: needs bitsandbytes, which is not installed\. Fix: pip install"):
        prepare(study, tmp_path / "out")
    study = study_of(write_rows(tmp_path / "rows.jsonl", good_rows()), toy_llama)
    study.yaml["base_case"]["precision"] = "4bit"
    with pytest.raises(UserError, match=rf"^{study.path.name}: precision: 4bit: needs bitsandbytes"):
        prepare(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()
