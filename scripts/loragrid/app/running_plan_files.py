"""Downloads of a running plan: text, Markdown and a calendar.

The files are data links in the page, so that the server's disk never holds a plan or a name.
"""

import base64
import hashlib
import re
from datetime import UTC, date, datetime, timedelta
from html import escape
from typing import Any

from loragrid.app.running_plan_form import RunningPlanForm
from loragrid.app.running_plan_html import SHORT_DAYS, cells, day_columns, heading, measure_adherence, summary_lines
from loragrid.errors import one_line
from loragrid.running_plans.reading import parse_plan
from loragrid.running_plans.vocabulary import is_running

# A start date outside these years is a typing error.
FIRST_YEAR, LAST_YEAR = 2000, 2100


def next_monday(today: date) -> date:
    """The Monday after `today`."""
    return today + timedelta(days=7 - today.weekday())


def start_error(value: Any) -> str:
    """A sentence if `value` is not a usable start date, else ""."""
    try:
        year = read_start(value).year
    except (TypeError, ValueError):
        return "Please give the start as a date such as 2027-03-01."
    if not FIRST_YEAR <= year <= LAST_YEAR:
        return f"The start must be between {FIRST_YEAR} and {LAST_YEAR}."
    return ""


def read_start(value: Any) -> date:
    """The date of a date field. Errors: `TypeError`, `ValueError`."""
    return date.fromisoformat(str(value).strip()[:10])


def as_text(form: RunningPlanForm, text: str) -> str:
    """The plan as text: heading, request, adherence, and the model's own words."""
    asked = "\n".join(f"{term}: {value}" for term, value in summary_lines(form) if term != "For")
    return f"{heading(form)}\n\n{asked}\n{measure_adherence(form, text).sentence}\n\n{text.strip()}\n"


def as_markdown(form: RunningPlanForm, text: str) -> str:
    """The plan as Markdown: request, adherence, table, and the model's own words.

    A fence longer than any in the text encloses these words, so that they cannot act as Markdown.
    """
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
    longest = max((len(backticks) for backticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([*lines, f"{fence}text", text.strip(), fence, ""])


def _plain(text: str) -> str:
    """`text` on one line with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~])", r"\\\1", " ".join(text.split()))


def as_calendar(form: RunningPlanForm, text: str, start: date) -> bytes:
    """The running days as all-day events in iCalendar format (RFC 5545), or b"" if the text has none.

    Week n covers the seven days from `start` + 7(n - 1). A weekday falls on its date in them, "Day k" on the k-th, and
    runs without a day are spread evenly.
    """
    from icalendar import Calendar, Event, vText

    plan = parse_plan(text)
    calendar = Calendar()
    calendar.add("prodid", "-//loragrid//running plan//EN")
    calendar.add("version", "2.0")
    # As text: icalendar does not escape properties that it does not know.
    calendar.add("x-wr-calname", vText(one_line(heading(form))))
    now = datetime.now(UTC)
    for week, row in cells(plan).items():
        for day, workout in row.items():
            offset = day_offset(day, start, runs=len(row))
            if offset is None or not is_running(workout):
                continue
            event = Event()
            on = start + timedelta(days=7 * (week - 1) + offset)
            event.add("uid", _event_id(form, start, f"{week} {day}"))
            event.add("dtstamp", now)
            event.add("dtstart", on)
            event.add("dtend", on + timedelta(days=1))
            # The model's own words, which may hold anything.
            event.add("summary", one_line(f"{workout or 'run'} (week {week})"))
            event.add("description", one_line(heading(form)))
            # A run must not mark the whole day as busy.
            event.add("transp", "TRANSPARENT")
            calendar.add_component(event)
    return calendar.to_ical() if calendar.events else b""


def _event_id(form: RunningPlanForm, start: date, place: str) -> str:
    """An id that the same request and start give again, so that a second import updates the events, and no other ones.

    It is a digest, since RFC 7986 wants ids that say nothing of a person.
    """
    content = repr((form, start.isoformat(), place))
    return f"{hashlib.sha256(content.encode()).hexdigest()[:32]}@loragrid"


def day_offset(day: str, start: date, *, runs: int) -> int | None:
    """Days from a week's first day (the weekday of `start`) to `day`; None for a day beyond the week. `runs`: number of
    entries in the week."""
    if day in SHORT_DAYS:
        return (SHORT_DAYS.index(day) - start.weekday()) % 7
    number = int(re.search(r"\d+", day)[0])
    if day.startswith("Run"):
        return (number - 1) * 7 // runs
    if not 1 <= number <= 7:
        return None
    return number - 1


def links_html(form: RunningPlanForm, text: str, start: date) -> str:
    """Links to the three files; a sentence replaces the calendar if the plan cannot be read."""
    name = f"{_slug(form.race)}-plan"
    calendar = as_calendar(form, text, start)
    links = [
        _link(f"{name}.txt", "Text", "text/plain", as_text(form, text).encode()),
        _link(f"{name}.md", "Markdown", "text/markdown", as_markdown(form, text).encode()),
    ]
    if calendar:
        label = f"Calendar from {start.day} {start:%B %Y}"
        links.append(_link(f"{name}.ics", label, "text/calendar", calendar))
    else:
        reason = "No running day can be read from this text, so there is no calendar file."
        links.append(f'<span class="hint">{reason}</span>')
    return f'<p class="downloads">{" ".join(links)}</p>'


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _link(name: str, label: str, kind: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    href = f"data:{kind};charset=utf-8;base64,{data}"
    return f'<a download="{name}" href="{href}">{escape(label)} <small>({name})</small></a>'
