"""The rows of a data set by their keys: filters, duplicates, and nested samples of a mix.

Rows of a set are numbered from 1 through its sources, one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from loragrid.data.heldout_split import group_near_prompts
from loragrid.data.row_counts import ReasonCounts, RowCount
from loragrid.data.row_keys import RowKeys, random_rank
from loragrid.data.source_scan import SourceScan
from loragrid.errors import UserError
from loragrid.study.sections import Filters


@dataclass(frozen=True)
class Part:
    """The rows of a set that come from one source, in its order.

    `name` is the key of the data set that the source belongs to, `share` its share of the rows of
    the whole. Row n of the source is row `offset` + n of the whole.
    """

    name: str
    share: float
    scan: SourceScan
    offset: int
    keys: list[RowKeys]


@dataclass
class RowSet:
    """The rows that are left of a data set, and counts of those that are not, by reason.

    `held_out` counts rows that are equal to held-out rows, `like_heldout` others that share
    something with one.
    """

    name: str
    parts: list[Part]
    filtered: ReasonCounts = field(default_factory=ReasonCounts)
    duplicates: RowCount = field(default_factory=RowCount)
    near_duplicates: RowCount = field(default_factory=RowCount)
    held_out: RowCount = field(default_factory=RowCount)
    like_heldout: ReasonCounts = field(default_factory=ReasonCounts)
    sampled_out: int = 0

    @property
    def keys(self) -> list[RowKeys]:
        """The keys of all rows, in order."""
        return [key for part in self.parts for key in part.keys]

    @property
    def numbers(self) -> list[int]:
        """The numbers of all rows in the set, in order."""
        return [part.offset + key.row for part in self.parts for key in part.keys]

    def keep(self, wanted: Callable[[RowKeys, int], bool]) -> None:
        """Keep the rows for which `wanted(key, row number)` holds."""
        self.parts = [
            replace(part, keys=[key for key in part.keys if wanted(key, part.offset + key.row)]) for part in self.parts
        ]

    def drop_unfit(self, filters: Filters) -> None:
        """Drop rows that the filters leave out for their length."""

        def wanted(key: RowKeys, row: int) -> bool:
            reason = _unfit(key, filters)
            if reason is not None:
                self.filtered.add(reason, row)
            return reason is None

        self.keep(wanted)

    def drop_duplicates(self) -> None:
        """Drop all but the first of equal conversations."""
        seen: set[bytes] = set()

        def wanted(key: RowKeys, row: int) -> bool:
            if key.digest in seen:
                self.duplicates.add(row)
                return False
            seen.add(key.digest)
            return True

        self.keep(wanted)

    def drop_near_duplicates(self) -> None:
        """Drop all but the first of conversations with nearly equal prompts, also in a chain."""
        keys = self.keys
        # A group is named by the position of its first row.
        groups = iter(enumerate(group_near_prompts([key.prompt for key in keys])))

        def wanted(_: RowKeys, row: int) -> bool:
            position, group = next(groups)
            if position != group:
                self.near_duplicates.add(row)
            return position == group

        self.keep(wanted)

    def sample(self, rows: int | None, *, seed: int) -> None:
        """Keep `rows` rows, each part's share of them; None keeps as many as the shares allow.

        A smaller sample is a subset of a larger one. Raises `UserError` if there are fewer rows.
        """
        sizes = [len(part.keys) for part in self.parts]
        available, counts = mix_counts(sizes, [part.share for part in self.parts], rows=rows)
        if rows is not None and rows > available:
            lower = f"lower it to {available} or less, or " if available else ""
            raise UserError(
                f"data.{self.name}.rows: more than the {available} rows that are left for training"
                f"{self._why_so_few()} ({rows}). Fix: {lower}give more rows."
            )
        self.sampled_out += sum(sizes) - sum(counts)
        self.parts = [
            replace(part, keys=sample_keys(part.keys, rows=count, seed=seed))
            for part, count in zip(self.parts, counts, strict=True)
        ]

    def _why_so_few(self) -> str:
        if len(self.parts) == 1:
            return " without duplicates, filtered and held-out rows"
        smallest = min(self.parts, key=lambda part: len(part.keys) / part.share)
        return f" by the weights of the mix: {smallest.name} has {len(smallest.keys)}"


def combine(name: str, sets: Sequence[RowSet], weights: Sequence[float]) -> RowSet:
    """A new set of the rows of `sets`, each of one source, with the counts of all of them."""
    whole, offset = RowSet(name, []), 0
    for each, weight in zip(sets, weights, strict=True):
        (part,) = each.parts
        whole.parts.append(replace(part, share=weight / sum(weights), offset=offset))
        whole.filtered.include(each.filtered, offset=offset)
        whole.duplicates.include(each.duplicates, offset=offset)
        whole.near_duplicates.include(each.near_duplicates, offset=offset)
        whole.held_out.include(each.held_out, offset=offset)
        whole.like_heldout.include(each.like_heldout, offset=offset)
        whole.sampled_out += each.sampled_out
        offset += part.scan.last_row
    return whole


def mix_counts(sizes: Sequence[int], shares: Sequence[float], *, rows: int | None) -> tuple[int, list[int]]:
    """The most rows that the shares allow, and each part's rows in a mix of `rows` (None: the most).

    The mix is filled row by row, always from the part furthest behind its share (Webster's method,
    1832), until that part has no row left. So a larger mix only ever adds rows to each part, which
    rounding each part's share would not ensure.
    """
    # Row k of a part, counted from 0, enters the mix at the place (k + ½) / share.
    places = np.concatenate([(np.arange(size) + 0.5) / share for size, share in zip(sizes, shares, strict=True)])
    part_of = np.repeat(np.arange(len(sizes)), sizes)
    first_missing = min((size + 0.5) / share for size, share in zip(sizes, shares, strict=True))
    order = np.lexsort((part_of, places))
    order = order[places[order] < first_missing]
    counts = np.bincount(part_of[order[:rows]], minlength=len(sizes))
    return len(order), counts.tolist()


def sample_keys(keys: list[RowKeys], *, rows: int, seed: int) -> list[RowKeys]:
    """A seeded sample of `rows` keys in their order, part of every larger one.

    Adding rows to the source replaces only a few of the sample.
    """
    if len(keys) <= rows:
        return keys
    # ASSUME: `rows` takes a seeded sample, not the first rows, since files are often sorted by
    # source or topic.
    ranks = [random_rank(key.digest, seed, b"sample") for key in keys]
    in_random_order = sorted(range(len(keys)), key=ranks.__getitem__)
    return [keys[i] for i in sorted(in_random_order[:rows])]


def _unfit(key: RowKeys, filters: Filters) -> str | None:
    """Why the filters leave a row out, None if they do not."""
    if key.characters < filters.min_characters:
        return f"fewer than {filters.min_characters} characters"
    if filters.max_characters is not None and key.characters > filters.max_characters:
        return f"more than {filters.max_characters} characters"
    if key.turns < filters.min_turns:
        return f"fewer than {filters.min_turns} messages"
    if filters.max_turns is not None and key.turns > filters.max_turns:
        return f"more than {filters.max_turns} messages"
    return None
