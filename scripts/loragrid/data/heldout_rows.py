"""The study's held-out rows, and what keeps them out of every training set."""

from collections.abc import Sequence
from dataclasses import replace

from loragrid.data.heldout_split import (
    NEAR_DUPLICATE_SIMILARITY,
    PROMPT_CHARACTERS,
    Split,
    group_rows,
    linking_answers,
    split_rows,
)
from loragrid.data.near_duplicates import near_duplicates_of
from loragrid.data.row_counts import ReasonCounts
from loragrid.data.row_keys import RowKeys
from loragrid.data.row_sets import RowSet
from loragrid.errors import UserError

# Reasons for keeping a row out of training; keys of the data card.
SAME_ANSWER = "answer of a held-out row"
SAME_PROMPT = "prompt of a held-out row"
NEAR_PROMPT = "nearly the prompt of a held-out row"


class HeldoutRows:
    """The held-out rows of a study, the same for all of its data sets.

    `rows` holds them as a set, `split` how they were chosen among `candidates`.
    """

    def __init__(self, candidates: RowSet, split: Split) -> None:
        keys = candidates.keys
        self.candidates, self.split = candidates, split
        self.keys = [keys[position] for position in split.heldout]
        self._digests = {key.digest for key in self.keys}
        self.rows = replace(candidates)
        self.rows.keep(lambda key, _: key.digest in self._digests)
        # The split has compared these rows with the held-out ones already.
        self._compared = {keys[position].digest for position in split.train}
        self.level = split.link_level
        self._answers = {answer for key in self.keys for answer in linking_answers(key, self.level)}
        self._prompts = {key.prompt for key in self.keys}

    def remove_from(self, rows: RowSet) -> None:
        """Drop from a training set the rows that are held out, and those that the split would have
        linked to one: they share an answer or a prompt with it, or nearly a prompt.

        Raises `UserError` if no row is left.
        """
        reasons = dict(zip((key.digest for key in rows.keys), self._reasons(rows.keys), strict=True))

        def wanted(key: RowKeys, row: int) -> bool:
            if key.digest in self._digests:
                rows.held_out.add(row)
                return False
            reason = reasons[key.digest]
            if reason is not None:
                rows.like_heldout.add(reason, row)
            return reason is None

        rows.keep(wanted)
        if not rows.keys:
            raise UserError(
                f"data.{rows.name}: every row is held out or shares an answer or prompt with a held-out row "
                f"({rows.held_out.count + rows.like_heldout.total} rows). Fix: lower heldout.rows, or give other rows."
            )

    def groups_of(self, rows: RowSet) -> list[int]:
        """The group of each row of a training set: a further split must not separate rows of one group.

        Rows are linked as in the split of the held-out rows, also through rows that are left out.
        """
        known = dict(zip((key.digest for key in self.candidates.keys), self.split.groups, strict=True))
        keys = rows.keys
        if all(key.digest in known for key in keys):
            return [known[key.digest] for key in keys]
        return group_rows(keys, level=self.level)

    def _reasons(self, keys: Sequence[RowKeys]) -> list[str | None]:
        """Per row the reason to keep it out of training, None for no reason."""
        reasons = [self._exact_reason(key) for key in keys]
        if not self.level.near_prompts:
            return reasons
        open_cases = []
        for position, key in enumerate(keys):
            compared = key.digest in self._compared or key.digest in self._digests
            if reasons[position] is None and not compared:
                open_cases.append(position)
        near = near_duplicates_of(
            sorted({prompt[:PROMPT_CHARACTERS] for prompt in self._prompts}),
            [keys[position].prompt[:PROMPT_CHARACTERS] for position in open_cases],
            threshold=NEAR_DUPLICATE_SIMILARITY,
        )
        for position, is_near in zip(open_cases, near, strict=True):
            if is_near:
                reasons[position] = NEAR_PROMPT
        return reasons

    def _exact_reason(self, key: RowKeys) -> str | None:
        if key.prompt in self._prompts:
            return SAME_PROMPT
        if not self._answers.isdisjoint(linking_answers(key, self.level)):
            return SAME_ANSWER
        return None


def choose_heldout(candidates: RowSet, *, rows: int, seed: int) -> HeldoutRows:
    """`rows` of the candidates, chosen by text alone. Raises `UserError` if that cannot be done."""
    return HeldoutRows(candidates, split_rows(candidates.keys, heldout_rows=rows, seed=seed, lost=_lost(candidates)))


def _lost(rows: RowSet) -> str:
    """How many rows a set has lost and why, for a message about too few of them; empty if none."""
    dropped = ReasonCounts()
    for part in rows.parts:
        dropped.include(part.scan.dropped, offset=part.offset)
    read = sum(part.scan.rows_read for part in rows.parts)
    reasons = [str(counts) for counts in (dropped, rows.filtered) if counts.total]
    if rows.duplicates.count:
        reasons.append(f"{rows.duplicates.count} equal ones")
    if rows.near_duplicates.count:
        reasons.append(f"{rows.near_duplicates.count} nearly equal ones")
    return f" of {read} that were read, without {'; '.join(reasons)}" if reasons else ""
