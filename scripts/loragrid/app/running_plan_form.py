"""What the plan form asks for: its fields checked, one sentence for each that is wrong, and the request to the model."""

import math
from dataclasses import dataclass
from typing import Any

from loragrid.demo.running_plans import (
    DAYS_PER_WEEK,
    LEVELS,
    RACES,
    TRAINING_WORDINGS,
    WEEKS,
    RunningPlanRequest,
    write_prompt,
)

NO_DAY = "any day"
DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MAX_WEEKS = 52
MAX_DAYS = 7
# Most characters of each text field. A demo model reads 512 tokens in all.
TEXT_LIMITS = {"name": 60, "target_time": 40, "injuries": 300, "details": 1000}
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class RunningPlanForm:
    """The plan form as filled in. `name` is for headings and files only: it is never given to a model."""

    name: str
    race: str
    level: str
    weeks: int
    days_per_week: int
    target_time: str
    long_run_day: str
    injuries: str
    details: str


FIELDS = tuple(RunningPlanForm.__dataclass_fields__)


def form_errors(values: dict[str, Any]) -> dict[str, str]:
    """Field → a sentence that says what is wrong with it; nothing for the fields that are right."""
    found = {
        "race": _one_of(values["race"], RACES, "race"),
        "level": _one_of(values["level"], LEVELS, "level"),
        "weeks": number_error(values["weeks"], "weeks", 1, MAX_WEEKS),
        "days_per_week": number_error(values["days_per_week"], "days per week", 1, MAX_DAYS),
        "long_run_day": _one_of(values["long_run_day"] or NO_DAY, (NO_DAY, *DAY_NAMES), "long-run day"),
    }
    found |= {field: text_error(values[field], limit) for field, limit in TEXT_LIMITS.items()}
    return {field: sentence for field, sentence in found.items() if sentence}


def read_form(values: dict[str, Any]) -> RunningPlanForm:
    """The form with blanks trimmed and lines joined; `values` must have no form_errors."""
    texts = {field: " ".join((values[field] or "").split()) for field in TEXT_LIMITS}
    numbers = {field: int(values[field]) for field in ("weeks", "days_per_week")}
    return RunningPlanForm(**values | texts | numbers | {"long_run_day": values["long_run_day"] or NO_DAY})


def number_error(value: Any, what: str, least: int, most: int) -> str:
    """A sentence if `value` is no whole number from `least` to `most`, else ""."""
    if value is None or value == "":
        return f"Please give the {what} as a number from {least} to {most}."
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"The {what} must be a number from {least} to {most}."
    if value != int(value):
        return f"The {what} must be a whole number from {least} to {most}."
    return "" if least <= value <= most else f"The {what} must be from {least} to {most}, not {int(value):,}."


def text_error(value: Any, limit: int) -> str:
    """A sentence if `value` is no text or longer than `limit` characters, else ""."""
    if value is not None and not isinstance(value, str):
        return "This must be text."
    length = len(value or "")
    return f"This has {length:,} characters; {limit:,} are the most." if length > limit else ""


def _one_of(value: Any, known: tuple[str, ...], what: str) -> str:
    return "" if value in known else f"Please choose the {what} from the list."


def write_request(form: RunningPlanForm, *, taught: bool) -> str:
    """The request as the model reads it: for the demo's models (`taught`) in the words they learned from, for others with
    the layout that the app can read as a table."""
    day = form.long_run_day if form.long_run_day != NO_DAY else None
    if taught:
        request = RunningPlanRequest(form.race, form.level, form.weeks, form.days_per_week)
        parts = [write_prompt(request, TRAINING_WORDINGS[0]), f"Long run on {day}." if day else ""]
    else:
        parts = [
            f"Write a running plan for a {form.race}. I am at {form.level} level. The plan lasts exactly {form.weeks} "
            f"weeks with exactly {form.days_per_week} running days in each week.",
            f"The long run is on {day}." if day else "",
        ]
    parts += [
        f"Target time: {form.target_time}." if form.target_time else "",
        f"Injuries: {form.injuries}." if form.injuries else "",
        form.details,
    ]
    if not taught:
        parts.append(
            'Begin every week with a line of its own, "Week 1:" and so on, and give every running day a line below it that '
            'begins with the day, such as "Tuesday: easy run, 5 km". Leave rest days out. Write all weeks and nothing else.'
        )
    return " ".join(part for part in parts if part)


def taught_range() -> str:
    """What the demo's models were taught, for a hint beside the fields."""
    return (
        f"This study's models were taught plans of {WEEKS[0]} to {WEEKS[-1]} weeks with {DAYS_PER_WEEK[0]} to "
        f"{DAYS_PER_WEEK[-1]} running days and a long run on Saturday or Sunday. Details are new to them. "
        "Ask for something else and see what happens."
    )
