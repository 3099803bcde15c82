"""Marks by which data say that a reply, or a whole row, is not to be trained on."""

import math
from typing import Any

# OpenAI and Mistral write `weight`, axolotl `train`, `training` and `masked`, others the rest.
TRAINED_IF_TRUE = ("weight", "loss_weight", "train", "training", "loss", "loss_mask", "train_on_turn", "trainable")
TRAINED_IF_FALSE = ("masked", "is_masked")
MARKS = frozenset((*TRAINED_IF_TRUE, *TRAINED_IF_FALSE))
SWITCHES = {"false": False, "no": False, "off": False, "true": True, "yes": True, "on": True}
PART_WEIGHT = "part_weight"  # the note on a weight that is neither 0 nor 1


def take_mark(fields: dict[str, Any], notes: set[str]) -> bool | None:
    """Whether the marks in `fields`, which are taken out, say to train; None if there is no mark.

    A field that is no mark, such as a text under `train`, stays in `fields`. One mark not to train is
    enough.
    """
    found = None
    for name in [name for name in fields if name.strip().lower() in MARKS]:
        key, value = name.strip().lower(), _switch(fields[name])
        # A loss of 1.7 was measured: it is no mark.
        if value is None or (key == "loss" and value not in (0, 1)):
            continue
        if value > 0 and value != 1:
            # A loss has no weights within a batch here: such a reply is trained like any other, and the card says so.
            notes.add(PART_WEIGHT)
        del fields[name]
        # A negative weight says to move away from a reply, so it is not trained either.
        trained = (value > 0) != (key in TRAINED_IF_FALSE)
        found = trained if found is None else found and trained
    return found


def take_turn_marks(fields: dict[str, Any], roles: list[str]) -> set[int]:
    """Positions of replies that a row's list of marks, which is taken out, says not to train on.

    `roles`: those of the row's turns. A list has a mark for each turn or for each reply; any other stays in `fields`.
    """
    untrained: set[int] = set()
    replies = [position for position, role in enumerate(roles) if role == "assistant"]
    for key in MARKS & fields.keys():
        marks = fields[key]
        if not isinstance(marks, list) or len(marks) not in (len(roles), len(replies)):
            continue
        values = [_switch(mark) for mark in marks]
        if None in values:
            continue
        del fields[key]
        if len(values) == len(roles):
            values = [values[position] for position in replies]
        for position, value in zip(replies, values, strict=True):
            if (value > 0) == (key in TRAINED_IF_FALSE):
                untrained.add(position)
    return untrained


def take_bad_label(fields: dict[str, Any], *, unpaired: bool) -> bool:
    """Whether a label, which is taken out, says that the reply is a bad one.

    `label` says so in TRL's unpaired preferences only: of other rows it is a class of the text.
    """
    bad = False
    for key in ("kto_tag", "label") if unpaired else ("kto_tag",):
        value = fields.get(key)
        # Of numbers nothing tells whether they are classes; tables hold truths as text.
        if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false")):
            bad |= not _switch(fields.pop(key))
    return bad


def _switch(value: Any) -> float | None:
    """A mark's value as a number; None if it is none."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text in SWITCHES:
            return float(SWITCHES[text])
        try:
            value = float(text)
        except ValueError:
            return None
    # A table's missing number is NaN.
    if not isinstance(value, bool | int | float) or math.isnan(value):
        return None
    return float(value)
