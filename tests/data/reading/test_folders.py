"""A folder of files is one source: its files in the order of their paths, each read by its kind."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from loragrid.data.reading.bad_rows import BadRow
from loragrid.data.reading.sources import open_source
from loragrid.errors import UserError
from loragrid.study.sections import DataSource
from tests.fixtures.chat_data import good_rows, prepare, study_of, write_rows


def open_folder(folder, **settings):
    return open_source(DataSource(path=str(folder)), folder=folder.parent, **settings)


def test_files_of_several_kinds_are_one_source(tmp_path, toy_llama):
    folder = tmp_path / "rows"
    (folder / "b").mkdir(parents=True)
    (folder / ".cache").mkdir()
    rows = good_rows()
    write_rows(folder / "b" / "1.jsonl", rows[10:20])
    (folder / "a.json").write_text(json.dumps(rows[:10], indent=1))
    parquet.write_table(pyarrow.Table.from_pylist(rows[20:]), folder / "b" / "2.parquet")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / ".cache" / "x.jsonl").write_text("{")
    source = open_folder(folder)
    assert list(source.rows()) == list(enumerate(rows, start=1)) == list(source.rows())
    assert source.files == {"a.json": 1, "b/1.jsonl": 11, "b/2.parquet": 21}
    card = prepare(study_of(folder, toy_llama), tmp_path / "out")
    whole = prepare(study_of(write_rows(tmp_path / "whole.jsonl", rows), toy_llama), tmp_path / "whole")
    assert card["fingerprint"] == whole["fingerprint"] and card["rows_kept"] == 40
    assert card["source"] == {"path": "rows", "files": 3, "sha256": source.description["sha256"]}
    assert card["sources"][0]["files"] == source.files


def test_numbers_go_on_from_file_to_file(tmp_path):
    (tmp_path / "1.jsonl").write_text('"a"\n\n{half\n')
    (tmp_path / "2.csv").write_text("x\nb\n")
    (tmp_path / "3.jsonl").write_text("")
    (tmp_path / "4.jsonl").write_text('"c"')
    source = open_folder(tmp_path, bad_rows="drop")
    rows = [(number, row.place if isinstance(row, BadRow) else row) for number, row in source.rows()]
    assert rows == [(1, "a"), (3, f"data file {tmp_path / '1.jsonl'}, line 3"), (5, {"x": "b"}), (6, "c")]


def test_every_file_counts_in_the_digest_and_in_the_identity(tmp_path, toy_llama):
    folder = tmp_path / "rows"
    folder.mkdir()
    seen = set()
    for name, count in (("a.jsonl", 10), ("b.jsonl", 20), ("b.jsonl", 21), (".hidden", 1)):
        write_rows(folder / name, good_rows(count))
        (data_id,) = study_of(folder, toy_llama).data_sets
        seen.add((open_folder(folder).description["sha256"], data_id))
        from loragrid.study import identity

        identity._source_content.cache_clear(), identity.file_content.cache_clear()
    assert len(seen) == len({digest for digest, _ in seen}) == len({data_id for _, data_id in seen}) == 3


def test_plain_texts_are_a_row_each(tmp_path):
    (tmp_path / "1.txt").write_bytes("one\r\nwith é".encode("utf-16"))
    (tmp_path / "2.txt").write_bytes(b"\xe9")
    (tmp_path / "3.txt").write_text("three\n")
    rows = dict(open_folder(tmp_path, bad_rows="drop").rows())
    assert rows[1] == {"text": "one\nwith é"} and rows[3] == {"text": "three\n"}
    assert rows[2].place == f"data file {tmp_path / '2.txt'}"


def test_files_about_the_data_are_not_read_and_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "license.jsonl").write_text('{"text": "two"}\n')
    for name in ("README.md", "LICENSE", "CITATION.cff"):
        (tmp_path / name).write_text("About these rows.")
    source = open_folder(tmp_path)
    assert [row["text"] for _, row in source.rows()] == ["one", "two"]
    assert source.description["files"] == 2
    assert source.description["files_not_read"] == ["CITATION.cff", "LICENSE", "README.md"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"data folder \S*: it holds no file\. Fix: put files of kind \.json, "),
        ([".hidden"], "it holds no file"),
        (["README.md", "LICENSE"], "it holds no file"),
        (["a.jsonl", "notes.md"], r"notes\.md: files of kind '\.md' are not supported"),
        (["a.jsonl", "notes.txt"], r"notes\.txt: nothing tells where a row"),
        (["model.safetensors"], r"model\.safetensors: files of kind '\.safetensors' are not supported"),
        (["a.jsonl", "b.xlsx"], r"b\.xlsx: spreadsheets are not read"),
    ],
)
def test_a_folder_that_cannot_be_read(tmp_path, names, message):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path)
