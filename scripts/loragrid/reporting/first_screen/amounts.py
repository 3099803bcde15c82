"""A setting's gain and its change in retention as words, from its row of the trade-offs."""

from typing import Any

from loragrid.formatting import between, change_beside


def amount(row: dict[str, Any], name: str, unit: str) -> str:
    """The row's `name` (gain or kept) without its interval: +25 points."""
    return change_beside(row[name], row[f"{name}_low"], row[f"{name}_high"], unit)


def with_interval(row: dict[str, Any], name: str, unit: str) -> str:
    """The same with its interval: +25 points (+14 to +36)."""
    return f"{amount(row, name, unit)} ({between(row[f'{name}_low'], row[f'{name}_high'], unit)})"
