"""A plan to take along: as text, as Markdown, as a calendar. Made in memory and put into the page as links, so that no
plan and no name is ever written to the server's disk."""

import base64
import re
from datetime import UTC, date, datetime, timedelta
from html import escape
from typing import Any

from loragrid.app.running_plan_form import RunningPlanForm
from loragrid.app.running_plan_html import SHORT_DAYS, cells, day_columns, heading, measure_adherence, summary_lines
from loragrid.running_plans.reading import parse_plan
from loragrid.running_plans.vocabulary import is_running

# A start date further off is a slip of the keyboard.
FIRST_YEAR, LAST_YEAR = 2000, 2100


def next_monday(today: date) -> date:
    """The Monday after `today`."""
    return today + timedelta(days=7 - today.weekday())


def start_error(value: Any) -> str:
    """A sentence if `value` is no date to start on, else ""."""
    try:
        year = read_start(value).year
    except (TypeError, ValueError):
        return "Please give the start as a date such as 2027-03-01."
    return "" if FIRST_YEAR <= year <= LAST_YEAR else f"The start must be between {FIRST_YEAR} and {LAST_YEAR}."


def read_start(value: Any) -> date:
    """The date in a date field. Errors: TypeError, ValueError."""
    return date.fromisoformat(str(value).strip()[:10])


def as_text(form: RunningPlanForm, text: str) -> str:
    """Heading, what was asked, and the plan as the model wrote it."""
    asked = "\n".join(f"{term}: {value}" for term, value in summary_lines(form) if term != "For")
    return f"{heading(form)}\n\n{asked}\n{measure_adherence(form, text).sentence}\n\n{text.strip()}\n"


def as_markdown(form: RunningPlanForm, text: str) -> str:
    """The plan with its table. What the model wrote stands in a fence, so that none of it acts as Markdown."""
    plan = parse_plan(text)
    lines = [f"# {_plain(heading(form))}", ""]
    lines += [f"- {term}: {_plain(value)}" for term, value in summary_lines(form) if term != "For"]
    lines += [f"- {measure_adherence(form, text).sentence}", ""]
    if plan.table:
        columns = day_columns(plan)
        lines += ["| Week | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for week, row in cells(plan).items():
            lines.append(f"| {week} | " + " | ".join(_plain(row.get(day, "")) for day in columns) + " |")
        lines.append("")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return "\n".join([*lines, f"{fence}text", text.strip(), fence, ""])


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~])", r"\\\1", " ".join(text.split()))


def as_calendar(form: RunningPlanForm, text: str, start: date) -> bytes:
    """The running days as all-day events (RFC 5545); b"" where no week and day can be read.

    Week n covers the seven days from `start` + 7(n - 1) on; a weekday is the one within them, "Day k" the k-th of them,
    and runs without a day are spread over them.
    """
    from icalendar import Calendar, Event

    plan = parse_plan(text)
    calendar = Calendar()
    calendar.add("prodid", "-//loragrid//running plan//EN")
    calendar.add("version", "2.0")
    calendar.add("x-wr-calname", heading(form))
    now = datetime.now(UTC)
    for week, row in cells(plan).items():
        for day, what in row.items():
            offset = day_offset(day, start, runs=len(row))
            if offset is None or not is_running(what):
                continue
            event = Event()
            on = start + timedelta(days=7 * (week - 1) + offset)
            event.add("uid", f"{on:%Y%m%d}-{_slug(f'{form.race} {week} {day}')}@loragrid")
            event.add("dtstamp", now)
            event.add("dtstart", on)
            event.add("dtend", on + timedelta(days=1))
            event.add("summary", f"{what or 'run'} (week {week})")
            event.add("description", heading(form))
            event.add("transp", "TRANSPARENT")
            calendar.add_component(event)
    return calendar.to_ical() if calendar.events else b""


def day_offset(day: str, start: date, *, runs: int) -> int | None:
    """Days from a week's first day, which is a weekday like `start`, to `day`; None for one beyond the week. `runs` is
    the number of entries in that week."""
    if day in SHORT_DAYS:
        return (SHORT_DAYS.index(day) - start.weekday()) % 7
    number = int(re.search(r"\d+", day)[0])
    if day.startswith("Run"):
        return (number - 1) * 7 // runs
    return number - 1 if 1 <= number <= 7 else None


def links_html(form: RunningPlanForm, text: str, start: date) -> str:
    """Links that save the three files; instead of the calendar a sentence where the plan cannot be read."""
    name = f"{_slug(form.race)}-plan"
    calendar = as_calendar(form, text, start)
    links = [
        _link(f"{name}.txt", "Text", "text/plain", as_text(form, text).encode()),
        _link(f"{name}.md", "Markdown", "text/markdown", as_markdown(form, text).encode()),
        _link(f"{name}.ics", f"Calendar from {start.day} {start:%B %Y}", "text/calendar", calendar)
        if calendar
        else '<span class="hint">No running day can be read from this text, so there is no calendar file.</span>',
    ]
    return f'<p class="downloads">{" ".join(links)}</p>'


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _link(name: str, label: str, kind: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    return f'<a download="{name}" href="data:{kind};charset=utf-8;base64,{data}">{escape(label)} <small>({name})</small></a>'
