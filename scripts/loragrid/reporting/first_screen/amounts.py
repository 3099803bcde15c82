"""A setting's gain and its change in retention as words, from its row of the trade-offs."""

from typing import Any

from loragrid.formatting import between, change_beside
from loragrid.reporting.compared_study import ComparedStudy


def amount(row: dict[str, Any], name: str, unit: str) -> str:
    """The row's `name` (gain or kept) without its interval: +25 points."""
    return change_beside(row[name], row[f"{name}_low"], row[f"{name}_high"], unit)


def with_interval(row: dict[str, Any], name: str, unit: str) -> str:
    """The same with its interval: +25 points (+14 to +36)."""
    return f"{amount(row, name, unit)} ({between(row[f'{name}_low'], row[f'{name}_high'], unit)})"


def target_change(row: dict[str, Any], compared: ComparedStudy, *, interval: bool = True) -> str:
    """The change of the main target's score: +25 points (+14 to +36); of a loss: −0.043 (−0.050 to −0.036)."""
    if not compared.higher_is_better:
        # A gain is positive, and a loss that falls is one.
        row = row | {"gain": -row["gain"], "gain_low": -row["gain_high"], "gain_high": -row["gain_low"]}
    return (with_interval if interval else amount)(row, "gain", compared.unit)
