"""Mistakes in a study file, gathered from all checks, so that one call names all of them."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loragrid.errors import UserError, each_error


@dataclass(frozen=True)
class Mistake:
    """A mistake in a study file: its place as keys and positions in lists, and the error about it.

    `kind` is the keyword of JSON Schema that is broken; of an unknown or a missing key it is "unknown" or "missing",
    and the place ends with that key.
    """

    place: tuple[str | int, ...]
    kind: str
    error: UserError


def gathered(*checks: Iterable[UserError]) -> list[UserError]:
    """The errors that checks yield, and the one that each of them may end with."""
    found: list[UserError] = []
    for check in checks:
        try:
            found.extend(check)
        except UserError as error:
            found.extend(each_error(error))
    return found


def without_mistakes(settings: Mapping[str, Any], mistakes: Iterable[Mistake]) -> dict[str, Any]:
    """A copy of a study file without the keys and the items that break the schema."""
    rest = copy.deepcopy(dict(settings))
    for mistake in sorted(mistakes, key=_from_the_end, reverse=True):
        if mistake.kind == "missing" or not mistake.place:
            continue
        *parents, last = mistake.place
        node: Any = rest
        for part in parents:
            node = node[part]
        if isinstance(node, list) or last in node:
            del node[last]
    return rest


def _from_the_end(mistake: Mistake) -> list[tuple[bool, int, str]]:
    """For sorting: the items of a list by their positions, and what is within a key after the key itself."""
    return [(isinstance(part, int), part if isinstance(part, int) else 0, str(part)) for part in mistake.place]
