"""Every kind of file in every encoding: the rows that were written are the rows that are read."""

import csv
import gzip
import io
import json

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragrid.data.reading.sources import open_source
from loragrid.errors import UserError
from loragrid.study.sections import DataSource

# What breaks readers: quotes, delimiters, line ends of all kinds, letters beside UTF-16's first plane.
PIECES = [
    "a",
    "é",
    "漢",
    "😀",
    '"',
    '""',
    ",",
    ";",
    "\t",
    "\n",
    "\r\n",
    "\u2028",
    "\x85",
    " ",
    "\\",
    "\\n",
    "'",
    "[",
    "{",
]
# Any letter but lone surrogates, which no encoding holds, NUL, which no text file has, and the lone carriage return,
# which Python's writer puts between no quotes.
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")
TEXTS = st.lists(st.sampled_from(PIECES) | LETTERS, min_size=1, max_size=9).map("".join)
ROWS = st.lists(st.builds(lambda q, a: {"question": q, "answer": f"x{a}"}, TEXTS, TEXTS), min_size=1, max_size=6)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be with a mark"]
LINE_ENDS = ["\n", "\r\n"]


def some_rows():
    """A row for each of the pieces."""
    return [{"question": f"{piece}b{piece}", "answer": f"x{piece}"} for piece in PIECES]


def json_array(rows, end):
    return json.dumps(rows, ensure_ascii=False, indent=1).replace("\n", end)


def json_lines(rows, end):
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows)


def table(delimiter):
    def write(rows, end):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, rows[0], delimiter=delimiter, lineterminator=end)
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    return write


KINDS = {
    "a.json": json_array,
    "lines.json": json_lines,
    "a.jsonl": json_lines,
    "a.ndjson": json_lines,
    "a.csv": table(","),
    "semicolons.csv": table(";"),
    "a.tsv": table("\t"),
}


def encoded(text, encoding):
    return ("\ufeff" + text).encode("utf-16-be") if encoding.endswith("mark") else text.encode(encoding)


def read(path, *, bad_rows="stop"):
    source = open_source(DataSource(path=str(path)), folder=path.parent, bad_rows=bad_rows)
    rows = list(source.rows())
    assert rows == list(source.rows())
    return rows


def write_compressed(path, content):
    codec = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}[path.suffix.lower()]
    with pyarrow.CompressedOutputStream(str(path), codec) as stream:
        stream.write(content)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=20)
@given(rows=ROWS, encoding=st.sampled_from(ENCODINGS), end=st.sampled_from(LINE_ENDS))
def test_rows_in_are_rows_out(tmp_path, name, rows, encoding, end):
    path = tmp_path / name
    path.write_bytes(encoded(KINDS[name](rows, end), encoding))
    assert [row for _, row in read(path)] == rows


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".GZ"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
def test_a_compressed_file_gives_the_rows_of_the_plain_one(tmp_path, name, suffix):
    content = KINDS[name](some_rows(), "\n").encode("utf-16")
    (tmp_path / name).write_bytes(content)
    path = tmp_path / (name + suffix)
    write_compressed(path, content)
    assert read(path) == read(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-20])
    for bad_rows in ("stop", "drop"):
        with pytest.raises(UserError, match=rf"{suffix}: cannot be decompressed to its end .* Fix: copy"):
            read(path, bad_rows=bad_rows)


def test_gzip_files_joined_together_are_read_to_the_end(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n') + gzip.compress(b'\xef\xbb\xbf{"a": 2}\n'))
    assert read(path) == [(1, {"a": 1}), (2, {"a": 2})]


def test_rows_of_a_table_are_numbered_by_their_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'question,answer,\r\n"one\r\ntwo",1,\r\n\r\nthree,"",x\r\n')
    third = {"column 3": ""}
    assert read(path) == [
        (2, {"question": "one\r\ntwo", "answer": "1"} | third),
        (5, {"question": "three", "answer": "", "column 3": "x"}),
    ]


def test_a_column_of_texts_is_a_table_too(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text\none; and a half\n\n""\n"two, three"\n')
    assert [row["text"] for _, row in read(path)] == ["one; and a half", "", "two, three"]


def test_a_field_may_be_longer_than_the_module_s_limit(tmp_path):
    wide = "wide " * 60_000
    path = tmp_path / "a.csv"
    path.write_text(f'a,b\n1,"{wide}"\n')
    assert read(path) == [(2, {"a": "1", "b": wide})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,a\n1,2\n", r"line 1: two columns have the same name \(a\)\. Fix: rename"),
        (b'"a,b\n1,2\n', r"line 1: the header is not readable \(unexpected end of data\)"),
        (b"a,\xe9\n1,2\n", r"line 1: the text is not UTF-8 \(byte 0xe9\)"),
    ],
)
def test_a_header_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(path, bad_rows="drop")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", KINDS)
def test_text_in_utf_16_without_a_mark_is_named(tmp_path, name, encoding):
    path = tmp_path / name
    path.write_bytes(KINDS[name](some_rows(), "\n").encode(encoding))
    likely = encoding.replace("-le", "LE").replace("-be", "BE").upper()
    with pytest.raises(UserError, match=rf"seems to be {likely} without a byte order mark\. Fix: .*iconv -f {likely} "):
        read(path)


def test_text_with_nul_bytes_is_no_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,answer\n1,2\n" * 9 + b"\0")
    with pytest.raises(UserError, match="not a text file"):
        read(path)


def test_an_array_or_one_value_per_line(tmp_path):
    """A .json file of lines is read as .jsonl, whatever its values are; else it is one array or values in sequence."""
    path = tmp_path / "a.json"
    for text, values in {
        '[{"a": 1}]\n[{"a": 2}]\n': [[{"a": 1}], [{"a": 2}]],
        '[{"a": 1}, {"a": 2}]\n \n': [{"a": 1}, {"a": 2}],
        '{"a": 1}\n\n{"a": 2}': [{"a": 1}, {"a": 2}],
        '{"a":\n1} {"a": 2}': [{"a": 1}, {"a": 2}],
        "[]": [],
    }.items():
        path.write_text(text)
        assert [value for _, value in read(path)] == values
