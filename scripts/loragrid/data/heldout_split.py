"""Training and held-out rows of a data set, chosen by text alone: the same for every model.

A held-out loss measures generalisation only if training saw neither its answers nor its prompts. So
rows that share one are linked into a group, and a group goes to one side as a whole.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loragrid.data.near_duplicates import DisjointSets, near_duplicate_pairs
from loragrid.data.row_keys import RowKeys, random_rank
from loragrid.errors import UserError

# ASSUME: two prompts are near duplicates from a Jaccard similarity of 0.9, judged on their first
# 4,000 characters.
NEAR_DUPLICATE_SIMILARITY = 0.9
PROMPT_CHARACTERS = 4_000
# Whole groups rarely add up to the exact number of held-out rows; this share of it is enough.
ENOUGH_HELDOUT = 0.9
# An answer of many rows: held-out rows that mostly give it measure it alone, and a short one is a label. Among fewer
# rows than these it may be chance.
FEWEST_OF_ONE_ANSWER = 10


@dataclass(frozen=True)
class LinkLevel:
    """How rows are linked besides long answers and equal prompts: also by short answers, also by near prompts."""

    short_answers: bool  # they may be labels, which many rows share
    near_prompts: bool

    def __str__(self) -> str:
        answers = "equal answers" if self.short_answers else "equal answers of 20 characters or more"
        return f"{answers} and {'near-equal' if self.near_prompts else 'equal'} prompts"


# Strictest first; `str` of a level is its text in the data card.
LINK_LEVELS = tuple(LinkLevel(short, near) for short in (True, False) for near in (True, False))


@dataclass(frozen=True)
class Split:
    """Positions of the training and held-out rows among the keys, ascending.

    `groups` holds the group number of each position, which `link_level` formed.
    """

    train: tuple[int, ...]
    heldout: tuple[int, ...]
    groups: tuple[int, ...]
    link_level: LinkLevel
    notes: list[str] = field(default_factory=list)


def split_rows(keys: Sequence[RowKeys], *, heldout_rows: int, seed: int, lost: str = "") -> Split:
    """Choose `heldout_rows` rows in whole groups, at random by `seed`; at most half of the rows.

    Weaker links are used, with a note, only if stricter ones leave too little to hold out, or chain
    most of all rows or of the held-out ones into one group, as labels do. Raises `UserError` if `heldout_rows`
    is more than half of the rows or cannot be reached with whole groups, and if most held-out rows would give
    the same long answer. `lost`: a clause for the message about rows that are not among the keys.
    """
    if len(keys) < 2:
        raise UserError(
            f"heldout.set: it has {len(keys)} usable row{lost}; a split needs at least two. Fix: give more rows."
        )
    if heldout_rows > len(keys) // 2:
        raise UserError(
            f"heldout.rows: {heldout_rows} is more than half of the {len(keys)} usable rows{lost}. "
            f"Fix: lower it to {len(keys) // 2} or less."
        )
    level, groups, chosen = _group_and_choose(keys, heldout_rows=heldout_rows, seed=seed)
    train = tuple(i for i in range(len(keys)) if i not in chosen)
    split = Split(
        train=train,
        heldout=tuple(sorted(chosen)),
        groups=tuple(groups),
        link_level=level,
    )
    _check_answers([keys[i] for i in split.heldout])
    return replace(split, notes=_split_notes(split, requested=heldout_rows))


def _group_and_choose(
    keys: Sequence[RowKeys],
    *,
    heldout_rows: int,
    seed: int,
) -> tuple[LinkLevel, list[int], set[int]]:
    """Link level, group of each row, and held-out positions.

    The strictest level that leaves enough to hold out, with most rows in one group neither of all nor
    of the held-out ones, is used; else the strictest that leaves enough. Labels never link rows: whole
    labels would be held out, which training then never sees.
    """
    ranks = [random_rank(key.digest, seed, b"split") for key in keys]
    with_giant_group = []
    labels = _are_labels(keys)
    for level in LINK_LEVELS:
        if level.short_answers and labels:
            continue
        groups = group_rows(keys, level=level)
        chosen = choose_groups(groups, ranks, rows=heldout_rows)
        if len(chosen) < ENOUGH_HELDOUT * heldout_rows:
            continue
        if not _has_giant_group(groups) and not _has_giant_group([groups[i] for i in chosen]):
            return level, groups, chosen
        with_giant_group.append((level, groups, chosen))
    if with_giant_group:
        return with_giant_group[0]
    count = len(set(groups))
    groups_text = "one group" if count == 1 else f"{count} groups"
    raise UserError(
        f"heldout.rows: {heldout_rows} of {len(keys)} rows cannot be held out without sharing an answer or "
        f"prompt with training: rows that share one form {groups_text}. "
        "Fix: lower heldout.rows, or give more varied data."
    )


def _are_labels(keys: Sequence[RowKeys]) -> bool:
    """Whether most rows have short answers alone, and one that many rows share."""
    counts = Counter(answer for key in keys for answer in key.short_answers)
    shared = {answer for answer, count in counts.items() if count >= FEWEST_OF_ONE_ANSWER}
    return sum(not key.answers and not shared.isdisjoint(key.short_answers) for key in keys) > len(keys) / 2


def _has_giant_group(groups: Sequence[int]) -> bool:
    """Whether more than one row and more than half of them are in one group."""
    return max(Counter(groups).values()) > max(1, len(groups) / 2)


def _check_answers(heldout: Sequence[RowKeys]) -> None:
    """Raise `UserError` if most of many held-out rows give the same long answer."""
    answers = Counter(answer for key in heldout for answer in key.answers)
    most = max(answers.values(), default=0)
    if most >= FEWEST_OF_ONE_ANSWER and most > len(heldout) / 2:
        raise UserError(
            f"heldout.set: {most} of {len(heldout)} held-out rows would give the same answer, and no training row: "
            "rows with an equal answer of 20 characters or more are kept on one side, and these data have few answers. "
            "Fix: if the answers are labels, write them with fewer than 20 characters; otherwise give more varied data."
        )


def group_rows(keys: Sequence[RowKeys], *, level: LinkLevel) -> list[int]:
    """Group number of each row, equal for rows that the level links, also in a chain."""
    sets = DisjointSets(len(keys))
    first_position: dict[tuple[str, Any], int] = {}
    for position, key in enumerate(keys):
        for link in [("answer", answer) for answer in linking_answers(key, level)] + [("prompt", key.prompt)]:
            sets.join(first_position.setdefault(link, position), position)
    if level.near_prompts:
        _join_near_prompts(sets, [key.prompt for key in keys])
    return [sets.find(position) for position in range(len(keys))]


def linking_answers(key: RowKeys, level: LinkLevel) -> tuple[int, ...]:
    """The answers that link a row to others."""
    return key.answers + key.short_answers if level.short_answers else key.answers


def group_near_prompts(prompts: Sequence[str]) -> list[int]:
    """Position of the first prompt that each prompt equals or nearly equals, also in a chain."""
    sets = DisjointSets(len(prompts))
    _join_near_prompts(sets, prompts)
    return [sets.find(position) for position in range(len(prompts))]


def _join_near_prompts(sets: DisjointSets, prompts: Sequence[str]) -> None:
    first_of_prompt: dict[str, int] = {}
    for position, prompt in enumerate(prompts):
        sets.join(first_of_prompt.setdefault(prompt[:PROMPT_CHARACTERS], position), position)
    texts, positions = list(first_of_prompt), list(first_of_prompt.values())
    for one, other in near_duplicate_pairs(texts, threshold=NEAR_DUPLICATE_SIMILARITY):
        sets.join(positions[one], positions[other])


def count_leaks(train: Sequence[RowKeys], heldout: Sequence[RowKeys]) -> dict[str, int]:
    """Held-out rows that share something with training, by what is shared: a check of the split.

    `answers` are replies of 20 characters or more, `prompts` whole prompts. The counts come from
    the rows themselves, not from the groups, so a mistake in the grouping would show here.
    """
    counts = {}
    for kind in ("answers", "prompts", "short_answers"):
        trained = {item for key in train for item in _shareable(key, kind)}
        counts[kind] = sum(not trained.isdisjoint(_shareable(key, kind)) for key in heldout)
    return counts


def _shareable(key: RowKeys, kind: str) -> tuple:
    return (key.prompt,) if kind == "prompts" else getattr(key, kind)


def choose_groups(groups: Sequence[int], ranks: Sequence[bytes], *, rows: int) -> set[int]:
    """Positions of whole groups, `rows` in all if the group sizes allow it, in the order of `ranks`.

    `groups` and `ranks` hold the group number and the place in a random order of each position.
    """
    members: dict[int, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    rank = {group: min(ranks[i] for i in positions) for group, positions in members.items()}
    queue = sorted(members, key=rank.__getitem__)
    chosen: set[int] = set()
    # Small groups first, so that the held-out set is not one answer many times over.
    for largest in (max(1, rows // 10), rows):
        for group in queue:
            size = len(members[group])
            if size <= min(largest, rows - len(chosen)) and members[group][0] not in chosen:
                chosen.update(members[group])
    if len(chosen) < ENOUGH_HELDOUT * rows:
        # Exceed the number by the smallest group left if half of the rows stay for training.
        left = [group for group in queue if members[group][0] not in chosen]
        smallest = min(left, key=lambda group: len(members[group]), default=None)
        if smallest is not None and len(chosen) + len(members[smallest]) <= len(groups) // 2:
            chosen.update(members[smallest])
    return chosen


def _split_notes(split: Split, *, requested: int) -> list[str]:
    notes = []
    apart = []
    if not split.link_level.short_answers:
        apart.append("equal answers under 20 characters")
    if not split.link_level.near_prompts:
        apart.append("nearly equal prompts")
    if apart:
        notes.append(
            f"{' and '.join(apart)} are on both sides of the split: keeping them on one side leaves too little "
            "to hold out, or too few different answers"
        )
    if len(split.heldout) != requested:
        found = len(split.heldout)
        notes.append(f"{requested} held-out rows were asked for: whole groups gave {found}")
    largest, size = Counter(split.groups).most_common(1)[0]
    if size > max(1, len(split.groups) / 2):
        trained = {split.groups[i] for i in split.train}
        side = "training" if largest in trained else "the held-out set"
        notes.append(
            f"{size} of {len(split.groups)} rows share answers or prompts, directly or in a chain; all are in {side}"
        )
    return notes
