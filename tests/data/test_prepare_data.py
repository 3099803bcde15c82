"""The stage from file to Parquet and card: every kind of file, every reason, sizes, digests, determinism, bad input."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
import yaml
from pyarrow import parquet

from loragrid.data.sources import CHUNK_CHARACTERS, open_source
from loragrid.data.training_data import load_training_data, rows_sha256
from loragrid.errors import UserError
from loragrid.models.loading import load_tokenizer
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import sha256_file
from loragrid.study.sections import DataSource
from loragrid.study.study_file import Study
from prepare_data import prepare_data

PLAIN = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] | capitalize + ':' + ' ' + m['content'] | trim }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

DEMO = yaml.safe_load((ROOT / "config" / "studies" / "demo.yaml").read_text())


def talk(question, *answers):
    turns = [{"from": "human", "value": question}]
    for n, answer in enumerate(answers):
        turns += [{"from": "human", "value": f"and {n}?"}] * (n > 0) + [{"from": "gpt", "value": answer}]
    return {"conversations": turns}


def good_rows(count=40):
    names = "amber birch cedar dune elm fern grove hazel iris juniper".split()
    return [
        talk(f"Which tree is {names[n % 10]} {n}?", f"It is the {names[n % 7]} tree number {n}.") for n in range(count)
    ]


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def study_of(source, model: Path, *, template=None, **data):
    settings = {"source": source if isinstance(source, dict) else {"path": str(source)}, "max_length_tokens": 200}
    settings |= {"max_rows": None, "heldout_rows": 5, "loss_on": "assistant", "split_seed": 1} | data
    point = {"model": "m", "learning_rate": 1e-3, "rank": 4, "batch": [2, 4], "seed": 1}
    grid = {"design": "one_factor"} | {axis: [value] for axis, value in point.items()}
    entry = {"path": str(model), "precision": "32bit", "chat_template": None if template is None else str(template)}
    everything = DEMO | {"data": settings, "models": {"m": entry}, "base_case": point, "grid": grid}
    return Study(name="x", path=Path("x.yaml"), yaml=everything)


def prepare(study, out):
    (data_id,) = study.data_sets
    return prepare_data(study=study, data_id=data_id, out=out)


def read_rows(out, side):
    return parquet.read_table(out / f"{side}.parquet").to_pylist()


def test_outputs_are_as_the_other_stages_read_them(tmp_path, toy_llama):
    study = study_of(write(tmp_path / "rows.jsonl", good_rows()), toy_llama)
    card = prepare(study, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "card.json",
        "heldout.parquet",
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
    assert sum(card["length_histogram"]["counts"]) == 40
    assert len(card["length_histogram"]["edges"]) == len(card["length_histogram"]["counts"]) + 1
    tokenizer = load_tokenizer(study.models["m"])
    row = read_rows(tmp_path / "out", "train")[0]
    original = good_rows()[row["row"] - 1]["conversations"]
    messages = [{"role": r, "content": t["value"]} for r, t in zip(("user", "assistant"), original, strict=True)]
    assert tokenizer.decode(row["input_ids"]) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode([i for i in row["labels"] if i != -100]) == original[1]["value"] + "<|end|>"
    assert card["examples"][0]["text"].startswith("<s><|user|>Which tree")


def test_same_input_same_bytes_and_a_killed_attempt_leaves_nothing(tmp_path, toy_llama):
    study = study_of(write(tmp_path / "rows.jsonl", good_rows()), toy_llama)
    (tmp_path / "b" / ".preparing").mkdir(parents=True)
    (tmp_path / "b" / ".preparing" / "half.parquet").write_bytes(b"x")
    for out in ("a", "b"):
        prepare(study, tmp_path / out)
    for name in ("card.json", "train.parquet", "heldout.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["card.json", "heldout.parquet", "train.parquet"]


def test_the_split_is_the_same_for_every_model(tmp_path, toy_llama, toy_gemma):
    path = write(tmp_path / "rows.jsonl", good_rows())
    cards = [prepare(study_of(path, model), tmp_path / model.name) for model in (toy_llama, toy_gemma)]
    held = [[row["row"] for row in read_rows(tmp_path / model.name, "heldout")] for model in (toy_llama, toy_gemma)]
    assert held[0] == held[1] and cards[0]["split"] == cards[1]["split"]


def test_every_reason_is_counted_with_its_rows(tmp_path, toy_llama):
    hi, hello = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello there, you."}
    bad = {
        "row is not an object": 7,
        "no conversation in the row": {"conversations": []},
        "not text": {"conversations": [hi, {"from": "gpt", "value": 4}]},
        "unknown role": {"conversations": [hi, {"from": "bystander", "value": "x"}]},
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
    card = prepare(study_of(write(tmp_path / "rows.jsonl", rows), toy_llama), tmp_path / "out")
    expected = {reason: {"count": 1, "first_rows": [number]} for number, reason in enumerate(bad, start=41)}
    expected["empty reply"] = {"count": 7, "first_rows": [45, 52, 53, 54, 55]}
    assert card["dropped"] == expected
    assert card["duplicates_removed"] == {"count": 1, "first_rows": [58]}
    assert card["cut_after_last_reply"] == {"count": 1, "first_rows": [59]}
    assert card["truncated"] == {"count": 1, "first_rows": [60]}
    assert card["rows_read"] == 60 and card["rows_kept"] == 42
    left_out = sum(reason["count"] for reason in card["dropped"].values()) + card["duplicates_removed"]["count"]
    assert left_out + card["rows_kept"] + card["sampled_out"] == card["rows_read"]


def test_max_rows_and_loss_on_all(tmp_path, toy_llama):
    path = write(tmp_path / "rows.jsonl", good_rows())
    card = prepare(study_of(path, toy_llama, max_rows=20, loss_on="all"), tmp_path / "out")
    assert (card["rows_kept"], card["sampled_out"], card["split"]["heldout_rows"]) == (20, 20, 5)
    row = read_rows(tmp_path / "out", "train")[0]
    assert row["labels"] == [-100, *row["input_ids"][1:]]


def test_unknown_and_broken_characters_are_counted(tmp_path, real):
    rows = [*good_rows(), talk("What is \N{REPLACEMENT CHARACTER}?", "It is a broken character, they say.")]
    template = tmp_path / "plain.jinja"
    template.write_text(PLAIN)
    study = study_of(write(tmp_path / "rows.jsonl", rows), real / "stories260k", template=template)
    card = prepare(study, tmp_path / "out")
    assert card["broken_characters"] == {"count": 1, "first_rows": [41]}
    assert card["tokens"]["unknown_share"] == card["tokens"]["unknown"] / (
        card["tokens"]["train"] + card["tokens"]["heldout"]
    )


def as_json_array(path, rows):
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8-sig")


def as_parquet(path, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)


def as_lines_in_json(path, rows):
    write(path, rows)


def as_crlf_lines(path, rows):
    path.write_bytes(b"\r\n".join(json.dumps(row).encode() for row in rows))


@pytest.mark.parametrize(
    ("name", "writer"),
    [("a.json", as_json_array), ("b.json", as_lines_in_json), ("c.jsonl", as_crlf_lines), ("d.parquet", as_parquet)],
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name, writer):
    writer(tmp_path / name, good_rows())
    source = open_source(DataSource(path=str(tmp_path / name)), folder=tmp_path)
    assert list(source.rows()) == list(enumerate(good_rows(), start=1)) == list(source.rows())
    assert source.description["path"] == name and len(source.description["sha256"]) == 64


def test_json_is_read_in_windows(tmp_path):
    """Values that straddle the reader's window, among them numbers and a text longer than it."""
    rows = [
        12,
        talk("q" * (CHUNK_CHARACTERS + 5), "a" * (2 * CHUNK_CHARACTERS)),
        -3.5e7,
        "x" * (CHUNK_CHARACTERS - 9),
        1234567,
        None,
    ]
    for text in (json.dumps(rows), json.dumps(rows, indent=3) + " \n" * 3, "\n".join(map(json.dumps, rows))):
        (tmp_path / "a.json").write_text(text)
        assert [
            row for _, row in open_source(DataSource(path=str(tmp_path / "a.json")), folder=tmp_path).rows()
        ] == rows


def test_a_folder_of_a_hub_data_set(tmp_path, toy_llama):
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", good_rows())
    settings = {"hub": str(folder), "revision": None, "split": "train"}
    source = DataSource.read(settings)
    card = prepare(study_of(settings, toy_llama), tmp_path / "out")
    assert card["rows_kept"] == 40 and card["source"]["split"] == "train" and len(card["source"]["sha256"]) == 64
    as_file = prepare(study_of(folder / "train.jsonl", toy_llama), tmp_path / "file")
    assert (card["fingerprint"], card["heldout_fingerprint"]) == (
        as_file["fingerprint"],
        as_file["heldout_fingerprint"],
    )
    with pytest.raises(UserError, match="split 'nosuch' cannot be loaded"):
        open_source(replace(source, split="nosuch"), folder=tmp_path)


def test_a_hub_data_set_without_a_network_is_one_line(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    source = DataSource(hub="nobody/nothing", revision="main", split="train")
    with pytest.raises(UserError, match="nobody/nothing at revision main is neither on the hub nor in the local cache"):
        open_source(source, folder=tmp_path)
    refs = tmp_path / "datasets--nobody--nothing" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("0" * 40)
    with pytest.raises(UserError, match="nobody/nothing, split 'train' cannot be loaded"):
        open_source(source, folder=tmp_path)


BAD_FILES = {
    "empty.json": (b"", r"empty\.json holds no row"),
    "empty.jsonl": (b"\n\n", r"empty\.jsonl holds no row"),
    "none.json": (b"[]", r"none\.json holds no row"),
    "cut.json": (b'[{"conversations": [\n{"from": "human"', r"cut\.json is not JSON near line 2 "),
    "comma.json": (b'[{"a": 1},\n]', r"comma\.json is not JSON near line 2 "),
    "glue.json": (b'[{"a": 1}\n {"a": 2}]', r"glue\.json is not JSON near line 2 .*expecting ',' or '\]'"),
    "tail.json": (b'[{"a": 1}]\nx', r"tail\.json is not JSON near line 2 .*after the end of the array"),
    "deep.json": (b"[" * 200_000, r"deep\.json is not JSON \(nested too deeply\)"),
    "latin.json": ('["é"]'.encode("latin-1"), r"latin\.json is not JSON .*utf-8"),
    "bad.jsonl": (b'{"conversations": []}\n\n{"conversations"\n', r"bad\.jsonl, line 3 is not JSON"),
    "latin.jsonl": (b'{"a": 1}\n"\xe9"\n', r"latin\.jsonl, line 2 is not JSON"),
    "deep.jsonl": (b"[" * 200_000, r"deep\.jsonl, line 1 is not JSON \(nested too deeply\)"),
    "bad.parquet": (b"PAR1 not really PAR1", r"bad\.parquet cannot be read as Parquet"),
    "rows.csv": (b"a,b\n", r"rows\.csv: kind '\.csv' is not read"),
    "form.jsonl": (
        b'{"question": "a", "answer": "b"}\n',
        r"form\.jsonl is in no known form \(keys seen: answer, question\)",
    ),
    "useless.jsonl": (
        b'{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": ""}]}\n' * 2,
        r"useless\.jsonl: none of its 2 rows can be trained on \(2 empty reply \(rows 1, 2\)\): mend them",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_line_and_leaves_the_results_alone(tmp_path, toy_llama, name):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    out.mkdir()
    (out / "card.json").write_text("the last good one")
    with pytest.raises(UserError, match=message):
        prepare(study_of(tmp_path / name, toy_llama), out)
    assert [path.name for path in out.iterdir()] == ["card.json"] and (
        out / "card.json"
    ).read_text() == "the last good one"


def test_other_mistakes(tmp_path, toy_llama):
    path = write(tmp_path / "rows.jsonl", good_rows(8))
    with pytest.raises(UserError, match="does not exist"):
        open_source(DataSource(path=str(tmp_path / "none.json")), folder=tmp_path)
    with pytest.raises(UserError, match="heldout_rows: 5 is more than half of the 8 usable rows"):
        prepare(study_of(path, toy_llama), tmp_path / "out")
    with pytest.raises(UserError, match=r"no row is left to train on for model m \(8 nothing left after truncation"):
        prepare(study_of(path, toy_llama, heldout_rows=2, max_length_tokens=8), tmp_path / "out")
    with pytest.raises(UserError, match="holds no data set m-0000"):
        prepare_data(study=study_of(path, toy_llama), data_id="m-0000", out=tmp_path / "out")


def test_generated_rows_are_kept_beside_the_data(tmp_path, toy_llama):
    pytest.importorskip("demo.plans")
    source = {"generator": "running_plans", "rows": 60, "seed": 3}
    study = study_of(source, toy_llama, max_length_tokens=512)
    card = prepare(study, tmp_path / "a")
    lines = (tmp_path / "a" / "source.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == card["rows_read"] == 60 and all("conversations" in json.loads(line) for line in lines)
    assert card["format"] == "sharegpt" and card["dropped"] == {}
    assert card["source"] == source | {"sha256": sha256_file(tmp_path / "a" / "source.jsonl")}
    assert card["split"]["heldout_rows"] == 5
    assert prepare(study, tmp_path / "b") == card


@pytest.fixture()
def stories(real, tmp_path):
    (tmp_path / "plain.jinja").write_text(PLAIN)

    def build(rows, **data):
        return study_of(rows, real / "stories260k", template=tmp_path / "plain.jinja", max_length_tokens=384, **data)

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
    """The broken conversation and its whole sister, among others of their form."""
    chats = [json.loads((real / "chat" / f"sharegpt_{name}.json").read_text()) for name in ("missing_turn", "long")]
    path = write(tmp_path / "rows.jsonl", [*chats, *good_rows()])
    card = prepare(stories(path), tmp_path / "out")
    assert card["dropped"] == {"empty reply": {"count": 1, "first_rows": [1]}}
    assert card["rows_kept"] == 41
    with pytest.raises(UserError, match=r"missing_turn\.json: none of its 1 rows .*1 empty reply \(row 1\)"):
        prepare(stories(real / "chat" / "sharegpt_missing_turn.json"), tmp_path / "out2")


def test_the_command_line_ends_in_one_line(tmp_path, root):
    """A study that does not exist: exit 2, one line on stderr, no traceback."""
    stage, out = root / "scripts" / "prepare_data.py", tmp_path / "out"
    command = [sys.executable, stage, "--study", "nosuch", "--data", "d", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: study 'nosuch'")
    assert not out.exists()


def test_a_length_beyond_the_model_s_context_is_refused(tmp_path, toy_llama):
    rows = write(tmp_path / "rows.jsonl", good_rows())
    assert prepare(study_of(rows, toy_llama, max_length_tokens=512), tmp_path / "out")["rows_kept"] == 40
    with pytest.raises(
        UserError, match=r"data\.max_length_tokens: 513 is longer than the context of model m, 512 tokens"
    ):
        prepare(study_of(rows, toy_llama, max_length_tokens=513), tmp_path / "longer")


def test_what_training_will_miss_is_said_before_any_work(tmp_path, toy_llama, monkeypatch):
    monkeypatch.setattr("loragrid.runtime.optional_packages.find_spec", lambda name: None)
    study = study_of(write(tmp_path / "rows.jsonl", good_rows()), toy_llama)
    study.yaml["training"]["optimizer"] = "adamw_8bit"
    with pytest.raises(UserError, match="adamw_8bit needs bitsandbytes, which is not installed: pip install"):
        prepare(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()
