"""Second pass over the sources of a set: its rows rendered, tokenised and written, with counts."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loragrid.data.formats.conversation import Conversation
from loragrid.data.formats.conversation_formats import to_conversation
from loragrid.data.rendering.tokenizing import (
    EncodedChat,
    RenderedChat,
    count_loss_tokens,
    encode_chats,
    render_conversations,
)
from loragrid.data.row_counts import ReasonCounts, RowCount
from loragrid.data.row_sets import RowSet
from loragrid.data.token_rows import TokenRowWriter
from loragrid.errors import UserError
from loragrid.models.chat_template import ChatTemplate
from loragrid.study.settings import Settings

BATCH_ROWS = 256  # rows rendered and tokenised at a time
EXAMPLES, EXAMPLE_CHARACTERS = 3, 300
# Reasons for dropping a row after its conversation was read; keys of the data card.
REFUSED = "refused by the chat template"
NOTHING_LEFT = "nothing left after truncation"


@dataclass
class TokenisedRows:
    """The written rows of one side of the split: their file, and counts over them.

    `settings` say how they were cut and labelled; `lengths` are tokens before the cut. `dropped`
    counts rows that could not be written.
    """

    template: ChatTemplate
    settings: Settings
    written: TokenRowWriter
    dropped: ReasonCounts = field(default_factory=ReasonCounts)
    lengths: list[int] = field(default_factory=list)
    truncated: RowCount = field(default_factory=RowCount)
    crossing_border: RowCount = field(default_factory=RowCount)
    with_tools: RowCount = field(default_factory=RowCount)
    roles: set[str] = field(default_factory=set)
    unknown_tokens: int = 0
    broken_characters: RowCount = field(default_factory=RowCount)
    special_token_ends: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def count_row(
        self,
        row: int,
        conversation: Conversation,
        chat: RenderedChat,
        encoded: EncodedChat,
    ) -> None:
        """Add a written row to the counts; `row` is its number in the set."""
        self.lengths.append(encoded.full_length)
        self.roles.update(message["role"] for message in conversation.messages)
        if encoded.full_length > len(encoded.input_ids):
            self.truncated.add(row)
        if encoded.crosses_border:
            self.crossing_border.add(row)
        if conversation.tools:
            self.with_tools.add(row)
        # A character that an earlier reader of the source could not decode.
        if "\N{REPLACEMENT CHARACTER}" in chat.text:
            self.broken_characters.add(row)
        last_reply_end = chat.replies[-1][1]
        special_tokens = self.template.special_tokens
        self.special_token_ends += chat.text.endswith(special_tokens, 0, last_reply_end)
        unknown = self.template.tokenizer.unk_token_id
        if unknown is not None:
            self.unknown_tokens += int((encoded.input_ids == unknown).sum())
        if len(self.examples) < EXAMPLES:
            self.examples.append({"row": row, "text": chat.text[:EXAMPLE_CHARACTERS]})


def tokenise(rows: RowSet, template: ChatTemplate, settings: Settings, *, path: Path, purpose: str) -> TokenisedRows:
    """Write the rows of a set to a Parquet file, in order, cut and labelled by the settings.

    Rows that the template refuses and rows without a loss token after truncation are dropped and
    counted. Raises `UserError` if none is left; `purpose` says in it what they are for.
    """
    conversations = _conversations(rows)
    with TokenRowWriter(path) as writer:
        tokenised = TokenisedRows(template, settings, writer)
        while batch := list(itertools.islice(conversations, BATCH_ROWS)):
            for number, conversation, chat, encoded in _encode_batch(batch, template, settings):
                if chat is None:
                    tokenised.dropped.add(REFUSED, number)
                elif count_loss_tokens(encoded.labels) == 0:
                    tokenised.dropped.add(NOTHING_LEFT, number)
                else:
                    writer.add(number, encoded)
                    tokenised.count_row(number, conversation, chat, encoded)
    if writer.rows == 0:
        raise UserError(
            f"data.{rows.name}: no row is left to {purpose} for model {template.model} "
            f"({tokenised.dropped}). Fix: raise max_length_tokens, or give other rows."
        )
    return tokenised


def _conversations(rows: RowSet) -> Iterator[tuple[int, Conversation]]:
    """(Number in the set, conversation) of each row."""
    for part in rows.parts:
        wanted = {key.row for key in part.keys}
        for number, row in part.scan.source.rows():
            if number in wanted:
                yield part.offset + number, to_conversation(row, part.scan.row_format)


def _encode_batch(
    batch: list[tuple[int, Conversation]], template: ChatTemplate, settings: Settings
) -> Iterator[tuple[int, Conversation, RenderedChat | None, EncodedChat | None]]:
    """Rows with their text and tokens, both None if the template refuses a row."""
    chats = render_conversations(template, [conversation for _, conversation in batch])
    encoded = encode_chats(
        template,
        [chat for chat in chats if chat is not None],
        max_length_tokens=settings.max_length_tokens,
        loss_on=settings.loss_on,
    )
    remaining = iter(encoded)
    for (number, conversation), chat in zip(batch, chats, strict=True):
        if chat is None:
            yield number, conversation, None, None
        else:
            yield number, conversation, chat, next(remaining)
