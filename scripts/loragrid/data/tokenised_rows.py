"""Second pass over the sources of a set: its rows rendered, tokenised and written, with counts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loragrid.data.formats.conversation_formats import to_conversation
from loragrid.data.formats.row_format import RowFormat
from loragrid.data.parallel_rows import map_batches
from loragrid.data.reading.json_files import JsonLine
from loragrid.data.reading.sources import read_row
from loragrid.data.rendering.encoder import Encoder
from loragrid.data.rendering.examples import example_segments
from loragrid.data.rendering.rendered import FIXES, RenderedChat
from loragrid.data.rendering.tokenizing import EncodedChat
from loragrid.data.row_counts import ReasonCounts, RowCount
from loragrid.data.row_sets import RowSet
from loragrid.data.token_rows import TokenRowWriter
from loragrid.errors import UserError
from loragrid.models.chat_templates.end_tokens import template_end
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.runtime.progress_lines import ProgressLines
from loragrid.runtime.worker_processes import TimeLimit
from loragrid.study.settings import Settings

# Rows rendered and tokenised at a time, and their characters.
BATCH_ROWS, BATCH_CHARACTERS = 256, 8_000_000
BATCH_SECONDS = 900  # for a batch, which takes a second; a template or a pattern may never end
EXAMPLES = 3  # rows that the card shows


@dataclass(frozen=True, slots=True)
class TokenisedRow:
    """A row to write, with what the card counts of it.

    `cut_end`: no reply keeps its end token; `broken`: the text holds the replacement character.
    """

    encoded: EncodedChat
    cut_end: bool
    broken: bool
    unknown_tokens: int


@dataclass(frozen=True, slots=True)
class TokenisedConversation:
    """The rows of a conversation, or the reason why there is none; `number` is its number in the set.

    It holds no texts: a process hands thousands of them to another one.
    """

    number: int
    rows: tuple[TokenisedRow, ...]
    reason: str | None
    facts: tuple[str, ...]
    roles: frozenset[str]
    with_tools: bool


@dataclass
class TokenisedRows:
    """The written rows of one side of the split: their file, and counts over them.

    `settings` say how they were cut and labelled; `lengths` are tokens before the cut. `dropped`
    counts rows that could not be written, `facts` what rendering did to rows, by its code;
    `without_end` rows of which no reply keeps its end token; `begun` rows of whose text only the
    beginning was tokenised.
    """

    template: ChatTemplate
    settings: Settings
    written: TokenRowWriter
    conversations: int = 0
    dropped: ReasonCounts = field(default_factory=ReasonCounts)
    facts: ReasonCounts = field(default_factory=ReasonCounts)
    lengths: list[int] = field(default_factory=list)
    truncated: RowCount = field(default_factory=RowCount)
    begun: RowCount = field(default_factory=RowCount)
    crossing_border: RowCount = field(default_factory=RowCount)
    with_tools: RowCount = field(default_factory=RowCount)
    without_end: RowCount = field(default_factory=RowCount)
    roles: set[str] = field(default_factory=set)
    unknown_tokens: int = 0
    broken_characters: RowCount = field(default_factory=RowCount)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, conversation: TokenisedConversation) -> None:
        """Write the rows of a conversation and count them, or count why there is none."""
        number = conversation.number
        if conversation.reason is not None:
            self.dropped.add(conversation.reason, number)
            return
        self.conversations += 1
        self.roles.update(conversation.roles)
        if conversation.with_tools:
            self.with_tools.add(number)
        for fact in conversation.facts:
            self.facts.add(fact, number)
        for row in conversation.rows:
            self.written.add(number, row.encoded)
            self._count_row(number, row)

    def _count_row(self, number: int, row: TokenisedRow) -> None:
        encoded = row.encoded
        self.lengths.append(encoded.full_length)
        if encoded.full_length > len(encoded.input_ids):
            self.truncated.add(number)
        if encoded.begun:
            self.begun.add(number)
        if encoded.crosses_border:
            self.crossing_border.add(number)
        if row.broken:
            self.broken_characters.add(number)
        if row.cut_end:
            self.without_end.add(number)
        self.unknown_tokens += row.unknown_tokens
        if len(self.examples) < EXAMPLES:
            segments = example_segments(self.template.tokenizer, encoded)
            self.examples.append({"row": number, "segments": segments})


def tokenise(
    rows: RowSet, template: ChatTemplate, settings: Settings, *, long_rows: str, path: Path, purpose: str
) -> TokenisedRows:
    """Write the rows of a set to a Parquet file, in order, cut and labelled by the settings.

    `long_rows`: "cut", "window" or "drop". Rows that the template refuses and rows without a loss
    token are dropped and counted. Raises `UserError` if none is left; `purpose` says in it what they
    are for.
    """
    encoder = Encoder(template, settings.max_length_tokens, settings.loss_on, long_rows)
    what = f"model {template.model}: its chat template or its tokenizer's pattern"
    limit = TimeLimit(BATCH_SECONDS, what, fix="set another chat_template, or leave these rows out")
    with TokenRowWriter(path) as writer:
        tokenised = TokenisedRows(template, settings, writer)
        label = f"[{template.model}] tokenising {rows.name} to {purpose}"
        with ProgressLines(label, total=len(rows.keys), items="rows") as progress:
            work = _batches(_raw_rows(rows))
            for conversations in map_batches(_encode_batch, encoder, work, limit=limit, describe=_of_rows):
                for conversation in conversations:
                    tokenised.add(conversation)
                progress.add(items=len(conversations))
    if writer.rows == 0:
        raise UserError(
            f"data.{rows.name}: no row is left to {purpose} for model {template.model} "
            f"({tokenised.dropped}). Fix: {_fix(tokenised)}, or give other rows."
        )
    return tokenised


def _fix(tokenised: TokenisedRows) -> str:
    """What to do about the most frequent reason for which rows were dropped."""
    counts = {reason: rows.count for reason, rows in tokenised.dropped.by_reason.items()}
    return FIXES[max(counts, key=counts.__getitem__)]


def _raw_rows(rows: RowSet) -> Iterator[tuple[int, Any, RowFormat]]:
    """(Number in the set, row as its source gives it, its format) of each row."""
    for part in rows.parts:
        wanted = {key.row for key in part.keys}
        for number, raw in part.scan.source.raw_rows():
            if number in wanted:
                yield part.offset + number, raw, part.scan.row_format


def _batches(rows: Iterator[tuple[int, Any, RowFormat]]) -> Iterator[list[tuple[int, Any, RowFormat]]]:
    """The rows in lists that fit into memory, in order."""
    batch: list[tuple[int, Any, RowFormat]] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += _characters(row[1])
        if len(batch) == BATCH_ROWS or characters > BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _characters(value: Any) -> int:
    """The characters of all texts in a row as its source gives it."""
    if isinstance(value, JsonLine):
        return len(value.text)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    if isinstance(value, list):
        return sum(map(_characters, value))
    return len(value) if isinstance(value, str) else 0


def _of_rows(waiting: list[list[tuple[int, Any, RowFormat]]]) -> str:
    return f", on one of rows {waiting[0][0][0]} to {waiting[-1][-1][0]},"


def _encode_batch(encoder: Encoder, batch: list[tuple[int, Any, RowFormat]]) -> list[TokenisedConversation]:
    # The first pass has read these rows, so none of them is a bad one.
    conversations = [to_conversation(read_row(raw, "stop"), row_format) for _, raw, row_format in batch]
    ends = _end_tokens(encoder.template)
    return [
        TokenisedConversation(
            number=number,
            rows=tuple(_tokenised_row(encoder.template, ends, chat, row) for chat, row in encoded.rows),
            reason=encoded.reason,
            facts=tuple(sorted(encoded.facts)),
            roles=frozenset(message["role"] for message in conversation.messages),
            with_tools=bool(conversation.tools),
        )
        for (number, *_), conversation, encoded in zip(batch, conversations, encoder.encode(conversations), strict=True)
    ]


def _end_tokens(template: ChatTemplate) -> list[int]:
    ends = {template_end(template), template.tokenizer.eos_token_id}
    return [end for end in ends if end is not None]


def _tokenised_row(template: ChatTemplate, ends: list[int], chat: RenderedChat, encoded: EncodedChat) -> TokenisedRow:
    unknown = template.tokenizer.unk_token_id
    return TokenisedRow(
        encoded=encoded,
        cut_end=not any((encoded.labels == end).any() for end in ends),
        # A character that an earlier reader of the source could not decode.
        broken="\N{REPLACEMENT CHARACTER}" in chat.text,
        unknown_tokens=0 if unknown is None else int((encoded.input_ids == unknown).sum()),
    )
