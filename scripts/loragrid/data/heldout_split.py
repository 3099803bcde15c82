"""Which rows are trained on and which are held out, decided on text alone: the same for every model.

A held-out loss says something about new conversations only if no answer and no prompt of theirs was trained on. So rows
are tied into groups, and a group goes to one side as a whole.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from loragrid.data.conversation_formats import Conversation
from loragrid.data.near_duplicates import Sets, hash_text, near_equal_pairs
from loragrid.errors import UserError

# ASSUME: two prompts are near-equal from a Jaccard similarity of 0.9 on, judged on their first 4,000 characters.
NEAR_EQUAL = 0.9
PROMPT_CHARACTERS = 4_000
# ASSUME: an answer under 20 characters (a label, a number, "yes") ties rows only as long as that leaves enough to hold out.
SHORT_ANSWER_CHARACTERS = 20
NOT_WORDS = re.compile(r"[\W_]+")
TIES = (
    "equal answers and near-equal prompts",
    "equal answers and equal prompts",
    "equal answers of 20 characters or more and equal prompts",
)


@dataclass(frozen=True, slots=True)
class RowKeys:
    """What the split knows of a row. `digest`: of the whole conversation; `answers` and `short_answers`: hashes of the
    normalised replies; `prompt`: the user's turns, normalised."""

    row: int
    digest: bytes
    answers: tuple[int, ...]
    short_answers: tuple[int, ...]
    prompt: str


@dataclass(frozen=True)
class Split:
    """`heldout` and `train`: positions in the keys that were given, ascending. `groups`: group number of each position."""

    train: tuple[int, ...]
    heldout: tuple[int, ...]
    groups: tuple[int, ...]
    ties: str
    notes: list[str] = field(default_factory=list)


def keys_of(row: int, conversation: Conversation) -> RowKeys:
    """The keys of one conversation."""
    whole = json.dumps([conversation.messages, conversation.tools], ensure_ascii=False, sort_keys=True)
    answers: dict[bool, set[int]] = {True: set(), False: set()}
    for message in conversation.messages:
        if message["role"] == "assistant":
            text = normalise(message["content"])
            answers[len(text) < SHORT_ANSWER_CHARACTERS].add(hash_text(text))
    prompt = " ".join(message["content"] for message in conversation.messages if message["role"] == "user")
    return RowKeys(
        row=row,
        digest=hashlib.blake2b(whole.encode(), digest_size=16).digest(),
        answers=tuple(sorted(answers[False])),
        short_answers=tuple(sorted(answers[True])),
        prompt=normalise(prompt),
    )


def normalise(text: str) -> str:
    """Case, punctuation and white space folded; a text of nothing else (":-)") stays as it is."""
    return NOT_WORDS.sub(" ", text.casefold()).strip() or text.strip()


def drop_duplicates(keys: Sequence[RowKeys]) -> tuple[list[RowKeys], list[int]]:
    """The keys without those of exactly equal conversations (the first is kept), and the row numbers dropped."""
    seen: set[bytes] = set()
    kept, dropped = [], []
    for key in keys:
        if key.digest in seen:
            dropped.append(key.row)
        else:
            seen.add(key.digest)
            kept.append(key)
    return kept, dropped


def sample(keys: Sequence[RowKeys], *, max_rows: int | None, seed: int) -> list[RowKeys]:
    """A seeded sample of `max_rows` keys in their order; rows added to the source displace only few of it."""
    if max_rows is None or len(keys) <= max_rows:
        return list(keys)
    # ASSUME: max_rows takes a seeded sample, not the first rows: files are often sorted by source or topic.
    chosen = sorted(range(len(keys)), key=lambda i: _order(keys[i].digest, seed, b"sample"))[:max_rows]
    return [keys[i] for i in sorted(chosen)]


def split_rows(keys: Sequence[RowKeys], *, heldout_rows: int, seed: int) -> Split:
    """Choose `heldout_rows` rows in whole groups, at random by `seed`; never more than half of the rows.

    Ties are loosened, and the split says so, only where the stricter ones leave too little to hold out or chain most
    rows into one group. Errors: `heldout_rows` above half of the rows, or no whole groups that come to it.
    """
    if len(keys) < 2:
        raise UserError(f"the data holds {len(keys)} usable row, and a split needs at least two: give more rows")
    if heldout_rows > len(keys) // 2:
        raise UserError(
            f"data.heldout_rows: {heldout_rows} is more than half of the {len(keys)} usable rows: "
            f"lower it to {len(keys) // 2} or less"
        )
    level, groups, chosen = _loosen(keys, heldout_rows=heldout_rows, seed=seed)
    train = tuple(i for i in range(len(keys)) if i not in chosen)
    heldout = tuple(sorted(chosen))
    notes = _notes(train, heldout, groups, level=level, asked=heldout_rows)
    return Split(train=train, heldout=heldout, groups=tuple(groups), ties=TIES[level], notes=notes)


def _loosen(keys: Sequence[RowKeys], *, heldout_rows: int, seed: int) -> tuple[int, list[int], set[int]]:
    """The strictest ties that leave enough to hold out without a group of most rows; failing that, the strictest that
    leave enough. Returns their level, the groups and the positions held out."""
    giants = []
    for level in range(len(TIES)):
        groups = group_rows(keys, level=level)
        chosen = _choose(keys, groups, heldout_rows=heldout_rows, seed=seed)
        if len(chosen) < 0.9 * heldout_rows:
            continue
        if max(Counter(groups).values()) <= max(1, len(keys) / 2):
            return level, groups, chosen
        giants.append((level, groups, chosen))
    if giants:
        return giants[0]
    raise UserError(
        f"data.heldout_rows: {heldout_rows} rows cannot be held out without an answer or prompt that is trained on too: "
        f"the {len(keys)} usable rows fall into {len(set(groups))} groups that share them; give more varied data, "
        "or lower heldout_rows"
    )


def group_rows(keys: Sequence[RowKeys], *, level: int) -> list[int]:
    """Group number of each row: rows tied as `TIES[level]` says, directly or through others, share it."""
    sets = Sets(len(keys))
    first: dict[tuple[str, Any], int] = {}
    prompts: dict[str, int] = {}
    for position, key in enumerate(keys):
        answers = key.answers if level == 2 else key.answers + key.short_answers
        for tie in [("answer", answer) for answer in answers] + [("prompt", key.prompt)]:
            sets.join(first.setdefault(tie, position), position)
        prompts.setdefault(key.prompt[:PROMPT_CHARACTERS], position)
    if level == 0:
        texts, owners = list(prompts), list(prompts.values())
        for one, other in near_equal_pairs(texts, threshold=NEAR_EQUAL):
            sets.join(owners[one], owners[other])
    return [sets.find(position) for position in range(len(keys))]


def leaks(keys: Sequence[RowKeys], split: Split) -> dict[str, int]:
    """Held-out rows that training knows already, counted afresh from the rows themselves: by a reply of 20 characters or
    more, by the whole prompt, and by a short reply."""

    def known(values: Iterable[str]) -> dict[str, int]:
        counts = {}
        for name in values:
            trained = {item for i in split.train for item in _items(keys[i], name)}
            counts[name] = sum(any(item in trained for item in _items(keys[i], name)) for i in split.heldout)
        return counts

    return known(("answers", "prompts", "short_answers"))


def _items(key: RowKeys, name: str) -> tuple:
    return (key.prompt,) if name == "prompts" else getattr(key, name)


def _choose(keys: Sequence[RowKeys], groups: Sequence[int], *, heldout_rows: int, seed: int) -> set[int]:
    """Positions of whole groups, `heldout_rows` in all where group sizes allow it.

    Groups come in the order of a seeded hash of their text. Small ones (up to a tenth of the held-out rows) are taken
    first, so that the held-out set is not one answer many times over; then larger ones; then, if more than a tenth is
    missing, the smallest that is left, as long as half of the rows stay for training.
    """
    members: dict[int, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    order = {group: min(_order(keys[i].digest, seed, b"split") for i in rows) for group, rows in members.items()}
    queue = sorted(members, key=order.__getitem__)
    chosen: set[int] = set()
    for limit in (max(1, heldout_rows // 10), heldout_rows):
        for group in queue:
            size = len(members[group])
            if size <= min(limit, heldout_rows - len(chosen)) and members[group][0] not in chosen:
                chosen.update(members[group])
    if len(chosen) < 0.9 * heldout_rows:
        left = [group for group in queue if members[group][0] not in chosen]
        smallest = min(left, key=lambda group: len(members[group]), default=None)
        if smallest is not None and len(chosen) + len(members[smallest]) <= len(keys) // 2:
            chosen.update(members[smallest])
    return chosen


def _order(digest: bytes, seed: int, purpose: bytes) -> bytes:
    """A place in a random order that depends on the row's own text alone, so that other rows do not move it."""
    return hashlib.blake2b(digest, digest_size=16, key=f"{seed}".encode(), person=purpose).digest()


def _notes(train: Sequence[int], heldout: Sequence[int], groups: Sequence[int], *, level: int, asked: int) -> list[str]:
    notes = []
    if level > 0:
        notes.append(f"tying rows by {TIES[0]} left too little to hold out: they are tied by {TIES[level]}")
    if len(heldout) != asked:
        notes.append(f"{asked} held-out rows were asked for: whole groups came to {len(heldout)}")
    largest, size = Counter(groups).most_common(1)[0]
    if size > max(1, len(groups) / 2):
        side = "training" if largest in {groups[i] for i in train} else "the held-out set"
        notes.append(f"{size} of {len(groups)} rows hang together by their answers or prompts and are all in {side}")
    return notes
