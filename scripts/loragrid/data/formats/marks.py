"""Marks by which data say that a reply, or a whole row, is not to be trained on."""

from typing import Any

# OpenAI and Mistral write `weight`, axolotl `train`, `training` and `masked`, others `loss` and `loss_weight`.
TRAINED_IF_TRUE = ("weight", "loss_weight", "train", "training", "loss")
TRAINED_IF_FALSE = ("masked",)
MARKS = frozenset((*TRAINED_IF_TRUE, *TRAINED_IF_FALSE))
SWITCHES = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
PART_WEIGHT = "part_weight"  # the note on a weight that is neither 0 nor 1


def take_mark(fields: dict[str, Any], notes: set[str]) -> bool | None:
    """Whether the marks in `fields`, which are taken out, say to train; None if there is no mark.

    A field that is no mark, such as a text under `train`, stays in `fields`. One mark not to train is
    enough.
    """
    found = None
    for key in MARKS & fields.keys():
        value = _switch(fields[key])
        # A loss of 1.7 was measured: it is no mark.
        if value is None or (key == "loss" and value not in (0, 1)):
            continue
        if value not in (0, 1):
            # A loss has no weights within a batch here: such a reply is trained like any other, and the card says so.
            notes.add(PART_WEIGHT)
        del fields[key]
        trained = bool(value) != (key in TRAINED_IF_FALSE)
        found = trained if found is None else found and trained
    return found


def take_bad_label(fields: dict[str, Any], *, unpaired: bool) -> bool:
    """Whether a label, which is taken out, says that the reply is a bad one.

    `label` says so in TRL's unpaired preferences only: of other rows it is a class of the text.
    """
    bad = False
    for key in ("kto_tag", "label") if unpaired else ("kto_tag",):
        if isinstance(fields.get(key), bool):
            bad |= not fields.pop(key)
    return bad


def _switch(value: Any) -> float | None:
    """A mark's value as a number; None if it is none."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text in SWITCHES:
            return float(SWITCHES[text])
        try:
            return float(text)
        except ValueError:
            return None
    return float(value) if isinstance(value, bool | int | float) else None
