"""Text files as they are: compressed or not, in UTF-8, UTF-16 or UTF-32, with or without a byte order mark."""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from loragrid.data.reading.bad_rows import NOT_ENCODED, BadRow
from loragrid.errors import UserError, first_line

CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}  # suffix → Arrow's name
HEAD_BYTES = 4096
# In this order: the mark of UTF-16 is the beginning of that of UTF-32.
MARKED_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Stands for a byte that cannot be decoded, followed by that byte in hexadecimal. No text in UTF-8, UTF-16 or UTF-32
# decodes to this lone surrogate, so a line with it has a mistake, and reading can go on behind it.
UNDECODED = "\udc00"


@contextmanager
def open_text(path: Path, *, newline: str | None) -> Iterator[TextIO]:
    """The file as text; `newline` as in `open`. A byte that cannot be decoded appears as `UNDECODED`.

    Raises `UserError` for a compressed file that ends early or is damaged, and for text in UTF-16 without a mark.
    """
    codecs.register_error("loragrid.undecoded", _mark_undecoded)
    try:
        with _open_bytes(path) as file:
            encoding = _encoding(path, file.read(HEAD_BYTES))
        with _open_bytes(path) as file:
            yield io.TextIOWrapper(file, encoding=encoding, errors="loragrid.undecoded", newline=newline)
    except OSError as error:
        if path.suffix.lower() not in CODECS:
            raise UserError(
                f"data file {path}: not readable ({first_line(error)}). Fix: check the file and its permissions."
            ) from None
        raise UserError(
            f"data file {path}: cannot be decompressed to its end ({first_line(error)}). Fix: copy the file again."
        ) from None


def undecoded(text: str, place: str) -> BadRow | None:
    """The mistake in the encoding of `text`, None if it has none; `place` names its file and line."""
    at = text.find(UNDECODED)
    if at < 0:
        return None
    byte = text[at + 1 : at + 3]
    return BadRow(
        NOT_ENCODED,
        place,
        f"the text is not UTF-8 (byte 0x{byte})",
        fix="convert the file from its encoding, such as `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW` for Latin-1",
    )


def _mark_undecoded(error: UnicodeDecodeError) -> tuple[str, int]:
    return f"{UNDECODED}{error.object[error.start]:02x}", error.end


@contextmanager
def _open_bytes(path: Path) -> Iterator[BinaryIO]:
    codec = CODECS.get(path.suffix.lower())
    if codec is None:
        with open(path, "rb") as file:
            yield file
        return
    import pyarrow

    with pyarrow.OSFile(str(path)) as file, pyarrow.CompressedInputStream(file, codec) as stream:
        yield io.BufferedReader(stream, buffer_size=2**20)


def _encoding(path: Path, head: bytes) -> str:
    for mark, encoding in MARKED_ENCODINGS.items():
        if head.startswith(mark):
            return encoding
    # Text in UTF-16 would pass as UTF-8 with a NUL beside each letter.
    zeros = head.count(0)
    if not zeros:
        return "utf-8"
    if zeros < len(head) / 8:
        raise UserError(f"data file {path}: not a text file (it has NUL bytes). Fix: check the file.")
    likely = "UTF-16LE" if head[1::2].count(0) > zeros / 2 else "UTF-16BE"
    if zeros > len(head) / 2:
        likely = "UTF-32LE" if head[3::4].count(0) > head[::4].count(0) else "UTF-32BE"
    raise UserError(
        f"data file {path}: the text seems to be {likely} without a byte order mark. "
        f"Fix: convert it with `iconv -f {likely} -t UTF-8 OLD > NEW`."
    )
