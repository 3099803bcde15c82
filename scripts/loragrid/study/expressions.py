"""Settings written as expressions of the rank, such as `2 * rank` or `sqrt(rank)`.

The grammar is closed, so that nothing in a study file is executed:

    expression = factor {("*" | "/") factor}
    factor     = number | "rank" | "sqrt(rank)"
"""

import math
import re

# Settings that may be expressions.
EXPRESSIONS = ("learning_rate", "alpha")
# Only the ten digits: `\d` also takes those of other scripts.
NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?")
OPERATOR = re.compile(r"\s*([*/])\s*")


def evaluate(expression: str, *, rank: int) -> float:
    """The value of an expression at a rank; raises `ValueError` for what the grammar does not have."""
    try:
        value = _product(expression, rank)
        finite = math.isfinite(value)
    except OverflowError:  # whole numbers grow without a limit until they become floats
        finite = False
    if not finite:
        raise ValueError("too large a number")
    return value


def _product(expression: str, rank: int) -> float:
    first, *rest = OPERATOR.split(expression.strip())
    value = _factor(first, rank)
    for operator, text in zip(rest[::2], rest[1::2], strict=True):
        factor = _factor(text, rank)
        if operator == "*":
            value *= factor
        elif factor == 0:
            raise ValueError("a division by 0")
        else:
            value /= factor
    return value


def _factor(text: str, rank: int) -> float:
    if text == "rank":
        return rank
    if re.fullmatch(r"sqrt\(\s*rank\s*\)", text):
        return math.sqrt(rank)
    if NUMBER.fullmatch(text):
        return float(text)
    if not text:
        raise ValueError("a factor is missing")
    raise ValueError(f"{text!r} is not a number, rank or sqrt(rank)")
