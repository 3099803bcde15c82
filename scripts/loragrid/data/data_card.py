"""The data card: sources and their weights, rows left out and why, the split, and lengths in tokens."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from loragrid.data.heldout_rows import HeldoutRows
from loragrid.data.heldout_split import count_leaks
from loragrid.data.rendering_notes import rendering_notes, rendering_warnings
from loragrid.data.row_counts import ReasonCounts, RowCount
from loragrid.data.row_sets import RowSet
from loragrid.data.tokenised_rows import TokenisedRows

CARD_SCHEMA = 2
HISTOGRAM_BINS = 20
SHOWN_FIELDS = 40  # of those that nothing reads
# From this share on, rows that are too similar to held-out ones are worth a note on the page.
MANY_LIKE_HELDOUT = 0.1


def set_facts(rows: RowSet, tokenised: TokenisedRows) -> dict[str, Any]:
    """The card's entries on a training set: sources, formats, and rows left out by reason.

    Every row read is in exactly one of the counts or in `rows_kept`.
    """
    dropped, cut, notes, unused = ReasonCounts(), RowCount(), ReasonCounts(), Counter()
    for part in rows.parts:
        dropped.include(part.scan.dropped, offset=part.offset)
        cut.include(part.scan.cut, offset=part.offset)
        notes.include(part.scan.notes, offset=part.offset)
        unused.update(part.scan.unused)
    dropped.include(tokenised.dropped, offset=0)
    only = rows.parts[0].scan.source.description
    mix = ", ".join(f"{part.name} {part.share:.0%}" for part in rows.parts)
    return {
        "set": rows.name,
        "source": only if len(rows.parts) == 1 else {"mix": mix},
        "sources": source_facts(rows),
        "format": " and ".join(sorted({part.scan.row_format.name for part in rows.parts})),
        "rows_read": sum(part.scan.rows_read for part in rows.parts),
        "dropped": dropped.as_dict(),
        "cut_after_last_reply": cut.as_dict(),
        "row_notes": notes.as_dict(),
        "unused_fields": _most_frequent(unused),
        "filtered": rows.filtered.as_dict(),
        "duplicates_removed": rows.duplicates.as_dict(),
        "near_duplicates_removed": rows.near_duplicates.as_dict(),
        "held_out": rows.held_out.as_dict(),
        "like_heldout": rows.like_heldout.as_dict(),
        "sampled_out": rows.sampled_out,
        "rows_kept": tokenised.conversations + rows.held_out.count,
    }


def _most_frequent(unused: Counter[str]) -> dict[str, int]:
    """Rows by the name of a field that nothing reads, the most frequent first; rare ones are counted together."""
    by_count = sorted(unused.items(), key=lambda item: (-item[1], item[0]))
    shown, others = dict(by_count[:SHOWN_FIELDS]), by_count[SHOWN_FIELDS:]
    if others:
        shown[f"{len(others)} other fields"] = sum(count for _, count in others)
    return shown


def source_facts(rows: RowSet) -> list[dict[str, Any]]:
    """Per source of a set: its origin, and which of the set's row numbers are its rows.

    Row `first_row` of the set is row 1 of the source.
    """
    return [
        {
            "set": part.name,
            "share": round(part.share, 6),
            "rows": len(part.keys),
            "rows_read": part.scan.rows_read,
            "first_row": part.offset + 1,
            "last_row": part.offset + part.scan.last_row,
            "format": part.scan.row_format.name,
            "source": part.scan.source.description,
            # Of a folder: the number of each file's first row.
            **({"files": part.scan.source.files} if part.scan.source.files else {}),
        }
        for part in rows.parts
    ]


def split_facts(rows: RowSet, heldout: HeldoutRows, train: TokenisedRows, held: TokenisedRows) -> dict[str, Any]:
    """The card's entries on the split: sizes as written, links between rows, and leaks."""
    group_sizes = Counter(heldout.split.groups).values()
    leaks = count_leaks(rows.keys, heldout.keys)
    return {
        "split": {
            "train_rows": train.written.rows,
            "heldout_rows": held.written.rows,
            "tied_by": str(heldout.split.link_level),
            "answer_groups": len(group_sizes),
            "largest_group": max(group_sizes),
            "leaks": leaks,
            "notes": [*heldout.split.notes, *_split_notes(rows, held, short_answers=leaks["short_answers"])],
        },
        "heldout": {
            "set": heldout.rows.name,
            "sources": source_facts(heldout.rows),
            "max_length_tokens": held.settings.max_length_tokens,
            "loss_on": held.settings.loss_on,
            "dropped": held.dropped.as_dict(),
            "truncated": held.truncated.as_dict(),
        },
    }


def _split_notes(rows: RowSet, held: TokenisedRows, *, short_answers: int) -> list[str]:
    notes = []
    if held.dropped.total:
        notes.append(f"{held.dropped.total} held-out rows were dropped after tokenising")
    if short_answers:
        notes.append(f"{short_answers} held-out rows have a reply under 20 characters that training has too")
    alike = rows.like_heldout.total
    candidates = alike + len(rows.keys) + rows.sampled_out
    if alike > MANY_LIKE_HELDOUT * candidates:
        notes.append(
            f"{alike} of {candidates} rows were kept out of training because they share an answer or a prompt "
            "with a held-out row"
        )
    return notes


def token_facts(train: TokenisedRows, held: TokenisedRows) -> dict[str, Any]:
    """The card's entries on tokens: counts, lengths, truncation, chat template, and digests.

    Lengths, truncation and examples are those of training rows.
    """
    limit = train.settings.max_length_tokens
    unknown = train.unknown_tokens + held.unknown_tokens
    return {
        "tokens": {
            "train": train.written.tokens,
            "heldout": held.written.tokens,
            "train_loss": train.written.loss_tokens,
            "heldout_loss": held.written.loss_tokens,
            "unknown": unknown,
            "unknown_share": unknown / (train.written.tokens + held.written.tokens),
        },
        "max_length_tokens": limit,
        "loss_on": train.settings.loss_on,
        "length_histogram": length_bins(train.lengths, max_length_tokens=limit),
        "truncated": train.truncated.as_dict(),
        "broken_characters": train.broken_characters.as_dict(),
        "chat_template_sha256": train.template.sha256,
        "notes": rendering_notes(train),
        "warnings": rendering_warnings(train),
        "examples": train.examples,
        "fingerprint": train.written.fingerprint,
        "heldout_fingerprint": held.written.fingerprint,
    }


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
