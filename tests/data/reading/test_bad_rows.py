"""Rows that cannot be read: named by file and line, or left out and counted."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from loragrid.data.reading.bad_rows import BadRow
from loragrid.data.reading.sources import open_source
from loragrid.errors import UserError
from loragrid.study.sections import DataSource
from loragrid.study.study_file import load_study
from tests.fixtures.chat_data import good_rows, prepare, study_of


def read(path, bad_rows="drop"):
    return list(open_source(DataSource(path=str(path)), folder=path.parent, bad_rows=bad_rows).rows())


def kinds(rows):
    """Number → reason of a bad row, or the value of a good one."""
    return {number: row.reason if isinstance(row, BadRow) else row for number, row in rows}


JSON_LINES = b'{"a": 1}\n\n{"a": \n"\xe9"\n{"a": 2}\r\n"cut'
NOT_JSON, NOT_ENCODED = "line is not JSON", "text is not in the file's encoding"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson"])
def test_bad_lines_of_json(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(JSON_LINES)
    assert kinds(read(path)) == {1: {"a": 1}, 3: NOT_JSON, 4: NOT_ENCODED, 5: {"a": 2}, 6: NOT_JSON}
    with pytest.raises(UserError, match=r"^data file \S*, line 3: not JSON \(.*\)\. Fix: .* or set bad_rows: drop\.$"):
        read(path, "stop")


def test_bad_records_of_a_table(tmp_path):
    """One bad quote makes one bad line: the lines that it opens are read as if it were not there."""
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n1,"2\n3,4\n5,"6"\n7,8,9\n1\n9,"x"y\n\xe9,1\n"3\n3",4\n5,"open\n6,7\n')
    quotes = "quotes of a field are wrong"
    assert kinds(read(path)) == {
        2: quotes,
        3: {"a": "3", "b": "4"},
        4: {"a": "5", "b": "6"},
        5: "more fields than the header",
        6: "fewer fields than the header",
        7: quotes,
        8: NOT_ENCODED,
        9: {"a": "3\n3", "b": "4"},
        11: quotes,
        12: {"a": "6", "b": "7"},
    }
    with pytest.raises(UserError, match=r"a\.csv, line 2: the quotes of a field are wrong .*Fix: .*double the quotes"):
        read(path, "stop")
    path.write_bytes(b"a,b\n1,2\n3,4,5\n")
    with pytest.raises(UserError, match=r"a\.csv, line 3: more fields than the header \(3 instead of 2\)"):
        read(path, "stop")


def test_one_bad_line_among_many_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"n": n}) for n in range(20_000)]
    lines[17_345] = lines[17_345][:-1]
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"line 17346: not JSON"):
        read(path, "stop")
    assert [number for number, row in read(path) if isinstance(row, BadRow)] == [17_346]


def test_dropped_rows_are_counted_in_the_card(tmp_path, toy_llama):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(row).encode() for row in good_rows()]
    lines[3:3] = [b"{half", b'"\xff"']
    path.write_bytes(b"\n".join(lines))
    card = prepare(study_of(path, toy_llama, bad_rows="drop"), tmp_path / "out")
    assert card["dropped"] == {
        NOT_JSON: {"count": 1, "first_rows": [4]},
        NOT_ENCODED: {"count": 1, "first_rows": [5]},
    }
    assert (card["rows_read"], card["rows_kept"]) == (42, 40)
    with pytest.raises(UserError, match=r"a\.jsonl, line 4: not JSON"):
        prepare(study_of(path, toy_llama), tmp_path / "other")


def test_bad_rows_before_all_others(tmp_path, toy_llama):
    """The format is detected from the first rows that can be read."""
    path = tmp_path / "a.jsonl"
    path.write_text("x\n" * 120 + "\n".join(json.dumps(row) for row in good_rows()))
    card = prepare(study_of(path, toy_llama, bad_rows="drop"), tmp_path / "out")
    assert card["rows_kept"] == 40 and card["dropped"][NOT_JSON]["count"] == 120
    path.write_text("x\n" * 120)
    with pytest.raises(UserError, match=r"a\.jsonl"):
        prepare(study_of(path, toy_llama, bad_rows="drop"), tmp_path / "out")


def test_bad_rows_count_in_the_identity_only_where_they_are_dropped(tmp_path, toy_llama):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in good_rows()))
    plain, stop, drop = (
        next(iter(study_of(path, toy_llama, **setting).data_sets))
        for setting in ({}, {"bad_rows": "stop"}, {"bad_rows": "drop"})
    )
    assert plain == stop != drop


def test_only_two_words_are_known(tmp_path, toy_llama):
    study = tmp_path / "mine.yaml"
    (tmp_path / "a.jsonl").write_text("{}")
    study.write_text(
        f"title: T\ndata: {{chat: {{source: {{path: a.jsonl}}, bad_rows: skip}}}}\nmodels: {{m: {{path: {toy_llama}}}}}\n"
    )
    with pytest.raises(UserError, match=r"data\.chat\.bad_rows: .*\(skip\|?.*Fix:|bad_rows.*stop"):
        load_study(str(study))


def test_a_key_that_is_given_twice_would_lose_a_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": [{"b": 1, "b": 2}]}\n')
    assert kinds(read(path)) == {1: {"a": 1}, 2: "a key is given twice"}
    with pytest.raises(UserError, match=r"line 2: a key is given twice \(b\)\. Fix: delete the line or correct it"):
        read(path, "stop")
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1},\n{"a": 1, "a": 2}]')
    with pytest.raises(UserError, match=r"a key is given twice: a\)\. Fix: delete one of the two"):
        read(path)


def test_two_columns_of_one_name_in_parquet(tmp_path):
    columns = [pyarrow.array(["x"]), pyarrow.array(["y"])]
    parquet.write_table(pyarrow.table(columns, names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"two columns have the same name \(a\)\. Fix: rename"):
        read(tmp_path / "a.parquet")


def test_an_array_in_a_file_of_lines_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('[\n{"a": 1}\n]')
    with pytest.raises(UserError, match=r"line 1: not JSON .* Fix: name the file \.json if it is one array"):
        read(path, "stop")
