"""The data card: what was read, what was left out and why, how it was split, and how long it is in tokens."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loragrid.data.conversation_formats import Conversation
from loragrid.data.heldout_split import RowKeys, Split, leaks
from loragrid.data.sources import Source
from loragrid.data.token_rows import TokenRows
from loragrid.data.tokenizing import Encoded, Rendered
from loragrid.models.chat_template import ChatTemplate
from loragrid.study.sections import DataSettings

CARD_SCHEMA = 1
FIRST_ROWS = 5
HISTOGRAM_BINS = 20
EXAMPLES, EXAMPLE_CHARACTERS = 3, 300
REFUSED = "refused by the chat template"
NOTHING_LEFT = "nothing left after truncation"


@dataclass
class Rows:
    """How many rows, and the numbers of the first five."""

    count: int = 0
    first_rows: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        self.count += 1
        if len(self.first_rows) < FIRST_ROWS:
            self.first_rows.append(row)

    def as_dict(self) -> dict[str, Any]:
        return {"count": self.count, "first_rows": self.first_rows}


class Dropped:
    """Rows left out, by reason."""

    def __init__(self) -> None:
        self.reasons: dict[str, Rows] = {}

    def add(self, reason: str, row: int) -> None:
        self.reasons.setdefault(reason, Rows()).add(row)

    def as_dict(self) -> dict[str, Any]:
        return {reason: self.reasons[reason].as_dict() for reason in sorted(self.reasons)}

    def __str__(self) -> str:
        """`2 empty reply (rows 3, 8); 1 not text (row 5)`, the most frequent reason first."""
        parts = []
        for reason, rows in sorted(self.reasons.items(), key=lambda item: (-item[1].count, item[0])):
            numbers = ", ".join(map(str, rows.first_rows)) + (" …" if rows.count > FIRST_ROWS else "")
            parts.append(f"{rows.count} {reason} (row{'s' if rows.count > 1 else ''} {numbers})")
        return "; ".join(parts) or "no row was read"


@dataclass
class Survey:
    """What the first reading found. `keys` are those of the rows that can be trained on, in the order of the source."""

    form: str
    rows_read: int = 0
    keys: list[RowKeys] = field(default_factory=list)
    dropped: Dropped = field(default_factory=Dropped)
    cut: Rows = field(default_factory=Rows)


@dataclass
class Tokenised:
    """What the second reading wrote and met; lengths in tokens before truncation, of the rows that were kept."""

    template: ChatTemplate
    train: TokenRows
    heldout: TokenRows
    lengths: list[int] = field(default_factory=list)
    truncated: Rows = field(default_factory=Rows)
    straddling: Rows = field(default_factory=Rows)
    with_tools: Rows = field(default_factory=Rows)
    roles: set[str] = field(default_factory=set)
    unknown_tokens: int = 0
    broken_characters: Rows = field(default_factory=Rows)
    special_ends: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def note(self, number: int, conversation: Conversation, text: Rendered, row: Encoded) -> None:
        """Take a row that was written into account."""
        self.lengths.append(row.full_length)
        self.roles.update(message["role"] for message in conversation.messages)
        for rows, applies in (
            (self.truncated, row.full_length > len(row.input_ids)),
            (self.straddling, row.straddles),
            (self.with_tools, bool(conversation.tools)),
            (self.broken_characters, "\N{REPLACEMENT CHARACTER}" in text.text),
        ):
            if applies:
                rows.add(number)
        self.special_ends += text.text.endswith(self.template.special_tokens, 0, text.replies[-1][1])
        unknown = self.template.tokenizer.unk_token_id
        self.unknown_tokens += 0 if unknown is None else int((row.input_ids == unknown).sum())
        if len(self.examples) < EXAMPLES:
            self.examples.append({"row": number, "text": text.text[:EXAMPLE_CHARACTERS]})


def source_facts(source: Source, survey: Survey, duplicates: list[int], *, sampled_out: int) -> dict[str, Any]:
    """The card's part on the source: where from, in which form, what was left out. Rows are numbered from 1."""
    removed = Rows()
    for row in duplicates:
        removed.add(row)
    return {
        "source": source.description,
        "format": survey.form,
        "rows_read": survey.rows_read,
        "dropped": survey.dropped.as_dict(),
        "duplicates_removed": removed.as_dict(),
        "cut_after_last_reply": survey.cut.as_dict(),
        "sampled_out": sampled_out,
    }


def split_facts(keys: list[RowKeys], split: Split, done: Tokenised) -> dict[str, Any]:
    """The card's part on the split: sizes as written, what ties rows together, and what leaked all the same."""
    sizes = Counter(split.groups).values()
    leaked = leaks(keys, split)
    notes = list(split.notes)
    if done.heldout.rows < len(split.heldout):
        notes.append(f"{len(split.heldout) - done.heldout.rows} held-out rows were dropped after tokenising")
    if leaked["short_answers"]:
        notes.append(f"{leaked['short_answers']} held-out rows have a reply under 20 characters that training has too")
    return {
        "rows_kept": done.train.rows + done.heldout.rows,
        "split": {
            "train_rows": done.train.rows,
            "heldout_rows": done.heldout.rows,
            "tied_by": split.ties,
            "answer_groups": len(sizes),
            "largest_group": max(sizes),
            "leaks": leaked,
            "notes": notes,
        },
    }


def token_facts(settings: DataSettings, done: Tokenised) -> dict[str, Any]:
    """The card's part on tokens: how many, how long, how cut, under which template, and the digests of both sides."""
    tokens = done.train.tokens + done.heldout.tokens
    return {
        "tokens": {
            "train": done.train.tokens,
            "heldout": done.heldout.tokens,
            "train_loss": done.train.loss_tokens,
            "heldout_loss": done.heldout.loss_tokens,
            "unknown": done.unknown_tokens,
            "unknown_share": done.unknown_tokens / tokens,
        },
        "max_length_tokens": settings.max_length_tokens,
        "loss_on": settings.loss_on,
        "length_histogram": length_histogram(done.lengths, max_length_tokens=settings.max_length_tokens),
        "truncated": done.truncated.as_dict(),
        "broken_characters": done.broken_characters.as_dict(),
        "chat_template_sha256": done.template.sha256,
        "notes": _template_notes(settings, done),
        "examples": done.examples,
        "fingerprint": done.train.fingerprint,
        "heldout_fingerprint": done.heldout.fingerprint,
    }


def _template_notes(settings: DataSettings, done: Tokenised) -> list[str]:
    notes, template = [], done.template
    if done.with_tools.count:
        how = (
            "are shown to the model by its template"
            if template.supports_tools
            else "are left out: the template has no place for them"
        )
        notes.append(f"the tools of {done.with_tools.count} rows {how}")
    if "system" in done.roles and not template.supports_system:
        notes.append("the template has no system turn: its text opens the next user turn")
    if "tool" in done.roles and not template.supports_tool_role:
        notes.append("the template has no tool turn: what tools returned is given as user turns")
    if template.needs_generation_marks and settings.loss_on == "assistant":
        notes.append("replies are found by the template's generation marks")
    if done.straddling.count:
        notes.append(f"in {done.straddling.count} rows a token lies across a reply's border; it counts as the reply's")
    if not done.special_ends:
        notes.append("replies end without a special token: the model is not taught where to stop")
    return notes


def length_histogram(lengths: Iterable[int], *, max_length_tokens: int) -> dict[str, list[int]]:
    """Rows by length in tokens before truncation: 20 equal bins up to twice the limit or the longest row, whichever is
    less; one more bin holds what is longer. `edges` has one entry more than `counts`."""
    values = np.fromiter(lengths, dtype=np.int64)
    longest = int(values.max(initial=1))
    edges = np.unique(np.linspace(0, min(longest, 2 * max_length_tokens), HISTOGRAM_BINS + 1).round().astype(np.int64))
    if longest > edges[-1]:
        edges = np.append(edges, longest)
    counts, _ = np.histogram(values, bins=edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
