"""The next steps on the terminal: a table of questions, the proposal, and the command that runs it."""

import shlex
from pathlib import Path
from typing import Any

from loragrid.formatting import UNKNOWN, duration, number, plural
from loragrid.paths import ROOT

COLUMNS = ("per closed", "time", "chance", "open question", "so far", "cheapest way to close it")
FIRST_TEXT = 3  # the columns from here on are texts


def next_table(found: dict[str, Any], where: Path) -> str:
    """What next.json holds, as text; `where` is the folder that snakemake was run in."""
    questions, options = found["questions"], {option["id"]: option for option in found["options"]}
    lines = [f"What would decide it: study {found['study']}, {plural(len(questions), 'open question')}", ""]
    if questions:
        rows = [_row(question, options.get(question["cheapest"])) for question in questions]
        lines += [*_aligned([COLUMNS, *rows]), "", *_notes(found), ""]
    lines += _proposal(found, where)
    return "\n".join(lines) + "\n"


def _row(question: dict[str, Any], option: dict[str, Any] | None) -> tuple[str, ...]:
    texts = question["text"], question["so_far"]
    if option is None:
        return (UNKNOWN, UNKNOWN, UNKNOWN, *texts, "no single step is likely to")
    chance = option["closes"][question["name"]]
    costs = duration(3600 * option["hours_per_closed"]), duration(3600 * option["hours"])
    return (*costs, percent(chance), *texts, option["text"])


def percent(chance: float) -> str:
    """A chance as whole percent; what is not certain is at most 99."""
    return f"{min(99, max(1, round(100 * chance)))}%"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """A table's lines: numbers to the right, texts to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if place < FIRST_TEXT else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _notes(found: dict[str, Any]) -> list[str]:
    """How chances and times are to be read."""
    margin = f"the margin (±{100 * found['margin']:g} points of right answers)"
    lines = [
        f"chance: that the difference is proved, or shown to be within {margin}, given what was measured.",
        "Measured differences are first shrunk, since the largest are in part luck.",
        f"time: of training and scoring, as measured on {found['device'] or 'this machine'}.",
    ]
    if found["assumed_spread"]:
        lines.append("No setting has two seeds: how much seeds vary is assumed, and the chances with it.")
    if found["untested"]:
        lines.append(f"{plural(len(found['untested']), 'comparison')} without a test: no step here closes them.")
    return lines


def _proposal(found: dict[str, Any], where: Path) -> list[str]:
    proposal = found["proposal"]
    if proposal is None:
        if not found["questions"]:
            return ["Nothing is open."]
        if found["budget_hours"] is not None:
            return [f"No step fits into {found['budget_hours']:g} hours. Fix: raise budget_hours."]
        return ["No single step is likely to close a question."]
    runs, time = plural(proposal["runs"], "new run"), duration(3600 * proposal["hours"])
    closed = f"{number(proposal['expected_closed'], 2)} of {plural(len(found['questions']), 'open question')}"
    lines = [
        f"Written: {proposal['file']}",
        f"  the study with {proposal['text']}: {runs}, {time}; on average it closes {closed}",
    ]
    if proposal["unfinished"]:
        unfinished = plural(proposal["unfinished"], "unfinished run")
        lines.append(f"  {unfinished} of the study come beside them, not counted in this time")
    lines.append("Run it with the command below. It goes on in the same results folder; finished runs are used again:")
    return [*lines, f"  {command(proposal, where)}"]


def command(proposal: dict[str, Any], where: Path) -> str:
    """The command that runs the proposed study file."""
    directory = "" if where == ROOT else f" --directory {shlex.quote(str(where))}"
    return f"snakemake --cores 1{directory} --config study={shlex.quote(proposal['file'])}"
