"""Sources: every kind of file gives the same rows, hub data sets, and files that cannot be read."""

import json
from dataclasses import replace

import pyarrow
import pytest
from pyarrow import parquet

from loragrid.data.reading.json_stream import CHUNK_CHARACTERS
from loragrid.data.reading.sources import open_source
from loragrid.errors import UserError
from loragrid.study.sections import DataSource
from tests.fixtures.chat_data import good_rows, prepare, study_of, talk, write_rows


def as_json_array(path, rows):
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8-sig")


def as_parquet(path, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)


def as_lines_in_json(path, rows):
    write_rows(path, rows)


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
    write_rows(folder / "train.jsonl", good_rows())
    settings = {"hub": str(folder), "revision": None, "split": "train"}
    source = DataSource.read(settings)
    card = prepare(study_of(settings, toy_llama), tmp_path / "out")
    assert card["rows_kept"] == 40 and card["source"]["split"] == "train" and len(card["source"]["sha256"]) == 64
    as_file = prepare(study_of(folder / "train.jsonl", toy_llama), tmp_path / "file")
    assert (card["fingerprint"], card["heldout_fingerprint"]) == (
        as_file["fingerprint"],
        as_file["heldout_fingerprint"],
    )
    with pytest.raises(UserError, match="split 'nosuch': cannot be loaded"):
        open_source(replace(source, split="nosuch"), folder=tmp_path)


def test_a_hub_data_set_without_a_network_is_one_line(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    source = DataSource(hub="nobody/nothing", revision="main", split="train")
    with pytest.raises(UserError, match="nobody/nothing, revision main: neither on the hub nor in the local cache"):
        open_source(source, folder=tmp_path)
    refs = tmp_path / "datasets--nobody--nothing" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("0" * 40)
    with pytest.raises(UserError, match="nobody/nothing, split 'train': cannot be loaded"):
        open_source(source, folder=tmp_path)


BAD_FILES = {
    "empty.json": (b"", r"empty\.json: the source holds no row"),
    "empty.jsonl": (b"\n\n", r"empty\.jsonl: the source holds no row"),
    "none.json": (b"[]", r"none\.json: the source holds no row"),
    "cut.json": (b'[{"conversations": [\n{"from": "human"', r"cut\.json: not JSON near line 2 "),
    "comma.json": (b'[{"a": 1},\n]', r"comma\.json: not JSON near line 2 "),
    "glue.json": (b'[{"a": 1}\n {"a": 2}]', r"glue\.json: not JSON near line 2 .*expecting ',' or '\]'"),
    "tail.json": (b'[{"a":\n1}]\nx', r"tail\.json: not JSON near line 3 .*after the end of the array"),
    "tail2.json": (b'[{"a": 1}]\nx', r"tail2\.json, line 2: not JSON"),
    "deep.json": (b"[" * 200_000, r"deep\.json: not JSON \(nested too deeply\)"),
    "latin.json": (
        '["é"]'.encode("latin-1"),
        r"latin\.json: not JSON near line 1 \(.*not UTF-8 \(byte 0xe9\)\)\. Fix: convert .*iconv",
    ),
    "bad.jsonl": (b'{"conversations": []}\n\n{"conversations"\n', r"bad\.jsonl, line 3: not JSON"),
    "latin.jsonl": (
        b'{"a": 1}\n"\xe9"\n',
        r"latin\.jsonl, line 2: the text is not UTF-8 \(byte 0xe9\)\. Fix: convert .*iconv",
    ),
    "deep.jsonl": (b"[" * 200_000, r"deep\.jsonl, line 1: not JSON \(nested too deeply\)"),
    "bad.parquet": (b"PAR1 not really PAR1", r"bad\.parquet: not readable as Parquet"),
    "rows.xml": (
        b"<a/>",
        r"rows\.xml: files of kind '\.xml' are not supported\. Fix: give one of .*\.csv, \.tsv .*parquet",
    ),
    "rows.tar.gz": (b"", r"rows\.tar\.gz: archives are not read \(\.tar\.gz\)\. Fix: unpack it\."),
    "rows.csv.zip": (b"PK", r"rows\.csv\.zip: archives are not read \(\.zip\)\. Fix: unpack it\."),
    "rows.parquet.gz": (b"", r"rows\.parquet\.gz: files of kind '\.parquet\.gz' are not supported"),
    "rows.xlsx": (b"PK", r"rows\.xlsx: spreadsheets are not read \(\.xlsx\)\. Fix: export the sheet as CSV"),
    "rows.ods": (b"PK", r"rows\.ods: spreadsheets are not read"),
    "rows.txt": (b"a", r"rows\.txt: nothing tells where a row .*Fix: give a folder with a \.txt file per row"),
    "rows.csv": (b"a,b\n", r"rows\.csv: the source holds no row"),
    "form.jsonl": (
        b'{"frage": "a", "antwort": "b"}\n',
        r"form\.jsonl: the format is unknown \(keys seen: antwort, frage\)",
    ),
    "useless.jsonl": (
        b'{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": ""}]}\n' * 2,
        r"useless\.jsonl: none of its 2 rows can be trained on \(2 empty reply \(rows 1, 2\)\)\. Fix: give rows",
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
