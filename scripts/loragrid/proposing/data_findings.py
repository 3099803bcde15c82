"""What is in a user's data: the form of the rows, their number and their length in the model's tokens."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.data.formats.conversation import Conversation
from loragrid.data.formats.conversation_formats import to_conversation
from loragrid.data.heldout_rows import HeldoutRows, choose_heldout
from loragrid.data.heldout_split import count_leaks
from loragrid.data.reading.sources import open_source, read_row
from loragrid.data.rendering.early_cut import FEWEST_CHARACTERS, early_cut
from loragrid.data.rendering.encoder import EncodedConversation, Encoder
from loragrid.data.rendering.rendered import RenderedChat
from loragrid.data.rendering.tokenizing import NO_LOSS, EncodedChat
from loragrid.data.row_keys import RowKeys, random_rank
from loragrid.data.row_sets import Part, RowSet
from loragrid.data.row_warnings import known_answers_warning
from loragrid.data.source_scan import SourceScan, scan_source
from loragrid.errors import UserError
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.proposing.column_guess import guess_columns
from loragrid.runtime.worker_processes import TimeLimit, in_own_process
from loragrid.study.sections import DataSource

# Rows and characters that are tokenised to estimate the lengths: of long rows, fewer are enough.
SAMPLE_ROWS, SAMPLE_CHARACTERS, FEWEST_SAMPLED = 400, 1_000_000, 10
SAMPLE_SECONDS = 600  # for what takes a second
SAMPLED_TOKENS = 2048  # only the beginning of a very long row is tokenised: the most that is trained on
SPLIT_SEED = 3407  # heldout.seed, whose default the study keeps
# ASSUME: 200 held-out rows measure a loss within about one percent; of few rows a fifth is kept for measuring.
MOST_HELDOUT, HELDOUT_SHARE = 200, 0.2


@dataclass(frozen=True)
class RowLength:
    """The tokens of a row, and those before the first that carries loss."""

    tokens: int
    before_reply: int


@dataclass(frozen=True, kw_only=True)
class DataFindings:
    """What is in the data. `distinct`: usable rows without equal ones; `lengths`: those of a sample of them.

    `columns` maps uses to columns where names are not known ones; `guessed`: they are this project's guess.
    `unused`: names of fields that nothing reads.
    `heldout_rows` are those to ask for, `heldout_found` those that the split gives; `split_notes` say how.
    """

    name: str
    form: str
    columns: Mapping[str, str]
    guessed: bool
    rows_read: int
    distinct: int
    left_out: str
    left_out_rows: int
    unused: Sequence[str]
    equal_rows: int
    heldout_rows: int
    heldout_found: int
    train_rows: int
    split_notes: Sequence[str]
    lengths: Sequence[RowLength]

    @property
    def tokens(self) -> list[int]:
        """Tokens of each row of the sample, uncut, ascending."""
        return sorted(length.tokens for length in self.lengths)

    def cut_share(self, longest: int) -> float:
        """Share of the rows of more than `longest` tokens."""
        return sum(tokens > longest for tokens in self.tokens) / len(self.lengths)

    def lost_share(self, longest: int) -> float:
        """Share of the rows without any reply once they are cut to `longest` tokens."""
        return sum(length.before_reply >= longest for length in self.lengths) / len(self.lengths)

    def mean_cut(self, longest: int) -> float:
        """Mean tokens of a row that is cut to `longest`."""
        return statistics.fmean(min(tokens, longest) for tokens in self.tokens)


def read_data(
    source: Mapping[str, Any], columns: Mapping[str, str], template: ChatTemplate, *, folder: Path
) -> DataFindings:
    """Read a source as the data stage will. Raises `UserError` for what cannot be read or split.

    `source`: as in a study file, its path absolute; `folder` is for temporary files.
    """
    opened = open_source(DataSource(**source), folder=folder)
    guessed = not columns
    columns = columns or guess_columns(opened)
    scan = scan_source(opened, columns, {})
    rows = RowSet("data", [Part("data", 1.0, scan, 0, scan.keys)])
    rows.drop_duplicates()
    wanted, heldout = _split(rows)
    return DataFindings(
        name=Path(opened.name).name,
        form=scan.row_format.name,
        columns=columns,
        guessed=guessed and bool(columns),
        rows_read=scan.rows_read,
        distinct=len(rows.keys),
        left_out=str(scan.dropped) if scan.dropped.total else "",
        left_out_rows=scan.dropped.total,
        unused=tuple(scan.unused),
        equal_rows=rows.duplicates.count,
        heldout_rows=wanted,
        heldout_found=len(heldout.keys),
        train_rows=len(heldout.split.train),
        split_notes=_split_notes(heldout),
        lengths=_lengths(scan, rows, template),
    )


def _split(rows: RowSet) -> tuple[int, HeldoutRows]:
    """Held-out rows to ask for, and the split that the study will make of them; fewer if need be."""
    wanted = max(1, min(MOST_HELDOUT, int(HELDOUT_SHARE * len(rows.keys))))
    while True:
        try:
            return wanted, choose_heldout(rows, rows=wanted, seed=SPLIT_SEED)
        except UserError:
            if wanted == 1:
                raise
            wanted = wanted // 2


def _split_notes(heldout: HeldoutRows) -> list[str]:
    keys = heldout.candidates.keys
    leaks = count_leaks([keys[position] for position in heldout.split.train], heldout.keys)
    return [*heldout.split.notes, *known_answers_warning(leaks["short_answers"], len(heldout.keys))]


def _lengths(scan: SourceScan, rows: RowSet, template: ChatTemplate) -> list[RowLength]:
    """The lengths of each row in a sample, with the chat template and uncut; an estimate for very long rows."""
    long = {key.row: key.characters > 2 * FEWEST_CHARACTERS for key in _sample(rows.keys)}
    raw = [(row, long[number]) for number, row in scan.source.raw_rows() if number in long]
    wanted = [(to_conversation(read_row(row, "stop"), scan.row_format), is_long) for row, is_long in raw]
    what = f"model {template.model}: its chat template or its tokenizer's pattern, on the rows of {scan.source.name},"
    limit = TimeLimit(SAMPLE_SECONDS, what, fix="give another model, or other rows")
    encoded = in_own_process(_encoded, (template, wanted), limit)
    lengths = [_row_length(*row) for each in encoded for row in each.rows]
    if not lengths:
        reasons = sorted({each.reason for each in encoded if each.reason})
        raise UserError(
            f"data {scan.source.name}: model {template.model}'s chat template can show none of its rows "
            f"({'; '.join(reasons)}). Fix: give other rows, or another model."
        )
    return lengths


def _encoded(work: tuple[ChatTemplate, list[tuple[Conversation, bool]]]) -> list[EncodedConversation]:
    template, rows = work
    # The tokenised beginning of a very long row may hold no reply.
    encoders = {
        False: Encoder(template, 2**30, "assistant", "cut"),
        True: Encoder(template, SAMPLED_TOKENS, "all", "cut"),
    }
    encoded: list[EncodedConversation] = []
    for is_long, encoder in encoders.items():
        encoded += encoder.encode([row for row, row_is_long in rows if row_is_long is is_long])
    return encoded


def _sample(keys: Sequence[RowKeys]) -> list[RowKeys]:
    """Keys in a random order, until they are enough rows or enough text."""
    ranked = sorted(keys, key=lambda key: random_rank(key.digest, SPLIT_SEED, b"sample"))[:SAMPLE_ROWS]
    read = list(itertools.accumulate(min(key.characters, 2 * FEWEST_CHARACTERS) for key in ranked))
    return ranked[: max(FEWEST_SAMPLED, sum(characters <= SAMPLE_CHARACTERS for characters in read))]


def _row_length(chat: RenderedChat, encoded: EncodedChat) -> RowLength:
    """The length of a row; a rest that was not tokenised is assumed to have as many tokens a character."""
    if not encoded.begun:
        return RowLength(encoded.full_length, int(np.flatnonzero(encoded.labels != NO_LOSS)[0]))
    read = early_cut(chat.text, max_length_tokens=SAMPLED_TOKENS) or len(chat.text)
    tokens_per_character = encoded.full_length / read
    first = chat.replies[0][0] if chat.replies else 0
    return RowLength(round(len(chat.text) * tokens_per_character), round(first * tokens_per_character))
