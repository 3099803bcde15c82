"""Settings and their values as the page names them."""

import re

from loragrid.formatting import plural, setting, visible

# Settings and arms whose names are not their keys with spaces.
SETTING_NAMES = {
    "max_length_tokens": "maximum length",
    "max_grad_norm": "gradient clipping",
    "loss_on": "loss on",
    "warmup": "warm-up",
    "learning_rate_ratio": "learning rate ratio",
    "compute_dtype": "number format",
    "tied": "tied settings",
    "cells": "named arms",
}


def axis_name(axis: str) -> str:
    """A setting, or an axis of arms, as words: learning rate, target modules."""
    return SETTING_NAMES.get(axis, axis.replace("_", " "))


def axis_value(axis: str, text: str) -> str:
    """An axis value of the tables as the page prints it: 2e−4, 2×4, 80 000 tokens, 2 × rank."""
    text = visible(text, 80)
    if axis == "tied":
        return _setting_texts(text.replace("_", " "))
    if axis in NAMED_VALUES:
        return text
    amount = re.fullmatch(r"([\d.e+-]+)(tokens|steps|epochs|ratio)", text)
    if amount:
        return _amount(float(amount[1]), amount[2])
    if re.fullmatch(r"\d+x\d+", text):
        return text.replace("x", "×")
    if axis == "target_modules":
        return text.replace("_proj-", "_proj, ")
    return _setting_texts(text.replace("*", "×"))


# Axes whose values are names that the study file gives.
NAMED_VALUES = ("model", "data", "cells", "search", "method", "backend")


def _amount(number_of: float, unit: str) -> str:
    if unit == "ratio":
        return f"{100 * number_of:g}% of the updates"
    if unit == "epochs":
        return plural(1, "epoch") if number_of == 1 else f"{number_of:g} epochs"
    return plural(round(number_of), unit.removesuffix("s"))


def _setting_texts(text: str) -> str:
    """The text with numbers as 2e−4 or 0.001 and batches as 2×4."""
    text = re.sub(r"(?<![\w.])\d[\d.]*e-?\d+", lambda found: setting(float(found[0])), text)
    return re.sub(r"(?<=\d)x(?=\d)", "×", text)
