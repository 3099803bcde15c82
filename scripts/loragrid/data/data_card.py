"""The data card: rows read, rows dropped and why, the split, and lengths in tokens."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loragrid.data.conversation_formats import Conversation
from loragrid.data.heldout_split import Split, count_leaks
from loragrid.data.row_keys import RowKeys
from loragrid.data.sources import Source
from loragrid.data.token_rows import TokenRowWriter
from loragrid.data.tokenizing import EncodedChat, RenderedChat
from loragrid.models.chat_template import ChatTemplate
from loragrid.study.sections import DataSettings

CARD_SCHEMA = 1
FIRST_ROWS = 5
HISTOGRAM_BINS = 20
EXAMPLES, EXAMPLE_CHARACTERS = 3, 300
# Reasons for dropping a row after its conversation was read; keys of the data card.
REFUSED = "refused by the chat template"
NOTHING_LEFT = "nothing left after truncation"


@dataclass
class RowCount:
    """A number of rows, and the source's numbers of the first five."""

    count: int = 0
    first_rows: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        """Count one more row."""
        self.count += 1
        if len(self.first_rows) < FIRST_ROWS:
            self.first_rows.append(row)

    def as_dict(self) -> dict[str, Any]:
        """The count as the card holds it."""
        return {"count": self.count, "first_rows": self.first_rows}


class DroppedRows:
    """Dropped rows, counted by reason."""

    def __init__(self) -> None:
        self.by_reason: dict[str, RowCount] = {}

    def add(self, reason: str, row: int) -> None:
        """Count a row that was dropped for `reason`."""
        self.by_reason.setdefault(reason, RowCount()).add(row)

    def as_dict(self) -> dict[str, Any]:
        """The counts as the card holds them, reasons in alphabetical order."""
        return {reason: self.by_reason[reason].as_dict() for reason in sorted(self.by_reason)}

    def __str__(self) -> str:
        """`2 empty reply (rows 3, 8); 1 not text (row 5)`, the most frequent reason first."""
        parts = []
        by_count = sorted(self.by_reason.items(), key=lambda item: (-item[1].count, item[0]))
        for reason, rows in by_count:
            noun = "row" if rows.count == 1 else "rows"
            numbers = ", ".join(map(str, rows.first_rows))
            more = " …" if rows.count > FIRST_ROWS else ""
            parts.append(f"{rows.count} {reason} ({noun} {numbers}{more})")
        return "; ".join(parts) or "no row was read"


@dataclass
class SourceScan:
    """Findings of the first pass over a source; `keys` are those of usable rows, in its order."""

    source: Source
    row_format: str
    rows_read: int = 0
    keys: list[RowKeys] = field(default_factory=list)
    dropped: DroppedRows = field(default_factory=DroppedRows)
    cut: RowCount = field(default_factory=RowCount)


@dataclass
class TokenisedSplit:
    """Results of the second pass over a source: both writers, and counts over the rows written.

    `lengths` are tokens before truncation.
    """

    template: ChatTemplate
    train: TokenRowWriter
    heldout: TokenRowWriter
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
        """Add a written row to the counts; `row` is its number in the source."""
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


def source_facts(scan: SourceScan, duplicates: list[int], *, sampled_out: int) -> dict[str, Any]:
    """The card's entries on the source: origin, format, dropped rows. Rows are numbered from 1."""
    duplicates_removed = RowCount()
    for row in duplicates:
        duplicates_removed.add(row)
    return {
        "source": scan.source.description,
        "format": scan.row_format,
        "rows_read": scan.rows_read,
        "dropped": scan.dropped.as_dict(),
        "duplicates_removed": duplicates_removed.as_dict(),
        "cut_after_last_reply": scan.cut.as_dict(),
        "sampled_out": sampled_out,
    }


def split_facts(keys: list[RowKeys], split: Split, tokenised: TokenisedSplit) -> dict[str, Any]:
    """The card's entries on the split: sizes as written, links between rows, and leaks."""
    group_sizes = Counter(split.groups).values()
    leaks = count_leaks(keys, split)
    notes = list(split.notes)
    dropped = len(split.heldout) - tokenised.heldout.rows
    if dropped > 0:
        notes.append(f"{dropped} held-out rows were dropped after tokenising")
    short = leaks["short_answers"]
    if short:
        notes.append(f"{short} held-out rows have a reply under 20 characters that training has too")
    return {
        "rows_kept": tokenised.train.rows + tokenised.heldout.rows,
        "split": {
            "train_rows": tokenised.train.rows,
            "heldout_rows": tokenised.heldout.rows,
            "tied_by": split.link_level,
            "answer_groups": len(group_sizes),
            "largest_group": max(group_sizes),
            "leaks": leaks,
            "notes": notes,
        },
    }


def token_facts(settings: DataSettings, tokenised: TokenisedSplit) -> dict[str, Any]:
    """The card's entries on tokens: counts, lengths, truncation, chat template, and digests."""
    train, heldout = tokenised.train, tokenised.heldout
    limit = settings.max_length_tokens
    return {
        "tokens": {
            "train": train.tokens,
            "heldout": heldout.tokens,
            "train_loss": train.loss_tokens,
            "heldout_loss": heldout.loss_tokens,
            "unknown": tokenised.unknown_tokens,
            "unknown_share": tokenised.unknown_tokens / (train.tokens + heldout.tokens),
        },
        "max_length_tokens": limit,
        "loss_on": settings.loss_on,
        "length_histogram": length_bins(tokenised.lengths, max_length_tokens=limit),
        "truncated": tokenised.truncated.as_dict(),
        "broken_characters": tokenised.broken_characters.as_dict(),
        "chat_template_sha256": tokenised.template.sha256,
        "notes": _template_notes(settings, tokenised),
        "examples": tokenised.examples,
        "fingerprint": train.fingerprint,
        "heldout_fingerprint": heldout.fingerprint,
    }


def _template_notes(settings: DataSettings, tokenised: TokenisedSplit) -> list[str]:
    notes, template = [], tokenised.template
    rows_with_tools, crossing = tokenised.with_tools.count, tokenised.crossing_border.count
    if rows_with_tools and template.supports_tools:
        notes.append(f"the tools of {rows_with_tools} rows are shown to the model by its template")
    elif rows_with_tools:
        notes.append(f"the tools of {rows_with_tools} rows are left out: the template shows none")
    if "system" in tokenised.roles and not template.supports_system:
        notes.append("the template has no system turn: its text opens the next user turn")
    if "tool" in tokenised.roles and not template.supports_tool_role:
        notes.append("the template has no tool turn: the output of tools is given as user turns")
    if template.needs_generation_marks and settings.loss_on == "assistant":
        notes.append("replies are located by the template's generation marks")
    if crossing:
        notes.append(f"in {crossing} rows a token crosses a reply's border; it counts as the reply's")
    if not tokenised.special_token_ends:
        notes.append("replies end without a special token: the model is not taught where to stop")
    return notes


def length_bins(lengths: Iterable[int], *, max_length_tokens: int) -> dict[str, list[int]]:
    """Rows by length in tokens before truncation; `edges` has one entry more than `counts`.

    20 equal bins reach up to the longest row or twice the limit, whichever is less; one more bin
    holds anything longer, so that a few huge rows do not squeeze all others into one bin.
    """
    values = np.fromiter(lengths, dtype=np.int64)
    longest = int(values.max(initial=1))
    last_edge = min(longest, 2 * max_length_tokens)
    edges = np.unique(np.linspace(0, last_edge, HISTOGRAM_BINS + 1).round().astype(np.int64))
    if longest > edges[-1]:
        edges = np.append(edges, longest)
    counts, _ = np.histogram(values, bins=edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
