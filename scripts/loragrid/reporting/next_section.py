"""The page's section on what would decide the open questions, from what the stage `next` found."""

from typing import Any

from loragrid.errors import UserError
from loragrid.formatting import duration, plural
from loragrid.reporting.page import Material
from loragrid.runtime.atomic_files import read_json

SCHEMA = 1  # of next.json
SHOWN = 3


def next_section(material: Material) -> dict[str, Any] | None:
    """The open questions that are cheapest to close, and how many there are; None if `next` has not run.

    Raises `UserError` for a file of another version.
    """
    found = read_next(material)
    if found is None:
        return None
    options = {option["id"]: option for option in found["options"]}
    closable = [question for question in found["questions"] if question["cheapest"] is not None]
    return {
        "open": plural(len(found["questions"]), "open question") if found["questions"] else None,
        "rows": [_row(question, options[question["cheapest"]]) for question in closable[:SHOWN]],
        "more": len(closable) - SHOWN,
        "without": _without_text(len(found["questions"]) - len(closable)),
        "margin": f"{100 * found['margin']:g}",
        "device": found["device"],
        "assumed": found["assumed_spread"],
    }


def read_next(material: Material) -> dict[str, Any] | None:
    """What the stage `next` found; None if it has not run. Raises `UserError` for a file of another version."""
    path = material.results / "next" / "next.json"
    if not path.is_file():
        return None
    found = read_json(path)
    if found.get("schema") != SCHEMA:
        raise UserError(f"{path}: written by another version of next. Fix: run next again")
    return found


def sure_share(chance: float) -> str:
    """A chance as percent; what is not certain is not 100 %."""
    return f"{min(99, round(100 * chance))}%"


def _without_text(count: int) -> str:
    """How many questions no single step is likely to close, as a sentence; empty if there is none."""
    if not count:
        return ""
    return f"No single step is likely to close {'the other one' if count == 1 else f'{count} of them'}."


def _row(question: dict[str, Any], option: dict[str, Any]) -> dict[str, Any]:
    return {
        "question": question["text"],
        "so_far": question["so_far"],
        "option": option["text"],
        "chance": sure_share(option["closes"][question["name"]]),
        "time": duration(3600 * option["hours"]),
        "per_closed": duration(3600 * option["hours_per_closed"]),
    }
