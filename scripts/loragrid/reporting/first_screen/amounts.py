"""A setting's gain and its change in retention as words, from its row of the trade-offs."""

from typing import Any

from loragrid.formatting import between, change, decimals


def amount(row: dict[str, Any], name: str, unit: str) -> str:
    """The row's `name` (gain or kept) without its interval: +25 points."""
    places = decimals(row[f"{name}_low"], row[f"{name}_high"])
    return change(row[name], unit, words=True, places=places)


def with_interval(row: dict[str, Any], name: str, unit: str) -> str:
    """The same with its interval: +25 points (+14 to +36)."""
    return f"{amount(row, name, unit)} ({between(row[f'{name}_low'], row[f'{name}_high'], unit)})"
