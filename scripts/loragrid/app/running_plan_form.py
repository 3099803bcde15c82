"""The running-plan form: its fields, one sentence for each invalid field, and the prompt for the model."""

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
# Maximum characters of each text field. A demo model reads 512 tokens in all.
TEXT_LIMITS = {"name": 60, "target_time": 40, "injuries": 300, "details": 1000}
MAX_SEED = 2**31 - 1
LAYOUT_INSTRUCTIONS = (
    'Begin every week with a line of its own, "Week 1:" and so on, and give every running day a line below it that '
    'begins with the day, such as "Tuesday: easy run, 5 km". Leave rest days out. Write all weeks and nothing else.'
)


@dataclass(frozen=True)
class RunningPlanForm:
    """A valid, completed form. `name` appears in headings and files only; no model receives it."""

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
    """Invalid field → a sentence about its error."""
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
    """The form with trimmed blanks and joined lines; `values` must have no `form_errors`."""
    texts = {field: " ".join((values[field] or "").split()) for field in TEXT_LIMITS}
    numbers = {field: int(values[field]) for field in ("weeks", "days_per_week")}
    return RunningPlanForm(**values | texts | numbers | {"long_run_day": values["long_run_day"] or NO_DAY})


def number_error(value: Any, what: str, least: int, most: int) -> str:
    """A sentence if `value` is not a whole number from `least` to `most`, else ""."""
    if value is None or value == "":
        return f"Please give the {what} as a number from {least} to {most}."
    # The API accepts any JSON value, and in Python a bool is an int.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"The {what} must be a number from {least} to {most}."
    if value != int(value):
        return f"The {what} must be a whole number from {least} to {most}."
    if not least <= value <= most:
        return f"The {what} must be from {least} to {most}, not {int(value):,}."
    return ""


def text_error(value: Any, limit: int) -> str:
    """A sentence if `value` is not text or is longer than `limit` characters, else ""."""
    if value is not None and not isinstance(value, str):
        return "This must be text."
    length = len(value or "")
    if length > limit:
        return f"This text has {length:,} characters (limit: {limit:,})."
    return ""


def _one_of(value: Any, known: tuple[str, ...], what: str) -> str:
    return "" if value in known else f"Please choose the {what} from the list."


def form_prompt(form: RunningPlanForm, *, taught: bool) -> str:
    """The prompt for the model: in a training wording for the demo's models (`taught`), otherwise with instructions for
    a layout that the app can read."""
    day = "" if form.long_run_day == NO_DAY else form.long_run_day
    wishes = {"Target time": form.target_time, "Injuries": form.injuries}
    sentences = [f"{wish}: {text}." for wish, text in wishes.items() if text] + [form.details]
    if taught:
        request = RunningPlanRequest(form.race, form.level, form.weeks, form.days_per_week)
        long_run = f"Long run on {day}." if day else ""
        sentences = [write_prompt(request, TRAINING_WORDINGS[0]), long_run, *sentences]
    else:
        task = (
            f"Write a running plan for a {form.race}. I am at {form.level} level. The plan lasts exactly {form.weeks} "
            f"weeks with exactly {form.days_per_week} running days in each week."
        )
        long_run = f"The long run is on {day}." if day else ""
        sentences = [task, long_run, *sentences, LAYOUT_INSTRUCTIONS]
    return " ".join(sentence for sentence in sentences if sentence)


def taught_range() -> str:
    """A hint about the requests that the demo's models were trained on."""
    return (
        f"This study's models were trained on plans of {WEEKS[0]} to {WEEKS[-1]} weeks with {DAYS_PER_WEEK[0]} to "
        f"{DAYS_PER_WEEK[-1]} running days and a long run on Saturday or Sunday, and never saw details. "
        "Try other requests to see how they generalise."
    )
