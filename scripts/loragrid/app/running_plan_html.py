"""Running plans as escaped HTML: adherence to the request, summary, and a table of weeks and days."""

import re
from dataclasses import dataclass
from html import escape

from loragrid.app.running_plan_form import DAY_NAMES, NO_DAY, RunningPlanForm
from loragrid.formatting import visible
from loragrid.running_plans.reading import RunningPlan, parse_plan

SHORT_DAYS = tuple(name[:3] for name in DAY_NAMES)


@dataclass(frozen=True)
class Adherence:
    """Whether a plan has the requested weeks and days, and a sentence about it."""

    weeks_right: bool
    days_right: bool
    sentence: str

    @property
    def followed(self) -> bool:
        """Whether the plan has the weeks and the days that were asked for."""
        return self.weeks_right and self.days_right


def measure_adherence(form: RunningPlanForm, text: str) -> Adherence:
    """How the plan in `text` compares with the request."""
    plan = parse_plan(text)
    weeks_right, days_right = plan.weeks == form.weeks, plan.days_per_week == form.days_per_week
    requested = f"asked {_size(form.weeks, form.days_per_week)}"
    if plan.weeks is None and plan.days_per_week is None:
        return Adherence(False, False, f"✗ {requested}, no plan can be read from this text")
    mark = "✓" if weeks_right and days_right else "✗"
    sentence = f"{mark} {requested}, got {_size(plan.weeks, plan.days_per_week)}"
    return Adherence(weeks_right, days_right, sentence)


def _size(weeks: int | None, days: int | None) -> str:
    return f"{_count(weeks, 'week')} × {_count(days, 'day')}"


def _count(number: int | None, unit: str) -> str:
    if number is None:
        return f"? {unit}s"
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def adherence_html(adherence: Adherence) -> str:
    """The adherence as a coloured line; its mark also works without colour."""
    return f'<p class="adherence {"good" if adherence.followed else "bad"}">{escape(adherence.sentence)}</p>'


def summary_lines(form: RunningPlanForm) -> list[tuple[str, str]]:
    """The request as (term, value) pairs; empty values are left out."""
    rows = [
        ("For", form.name),
        ("Race", form.race),
        ("Level", form.level),
        ("Length", f"{_count(form.weeks, 'week')}, {_count(form.days_per_week, 'running day')} each"),
        ("Long run", form.long_run_day if form.long_run_day != NO_DAY else ""),
        ("Target time", form.target_time),
        ("Injuries", form.injuries),
        ("Details", form.details),
    ]
    return [(term, visible(value)) for term, value in rows if value]


def summary_html(form: RunningPlanForm, prompt: str) -> str:
    """The summary card: the request's fields, and the exact prompt."""
    rows = "".join(f"<div><dt>{term}</dt><dd>{escape(value)}</dd></div>" for term, value in summary_lines(form))
    words = f"<details><summary>The request as the model read it</summary><p>{escape(visible(prompt))}</p></details>"
    return f'<section class="summary" aria-label="Plan summary"><dl>{rows}</dl>{words}</section>'


def heading(form: RunningPlanForm) -> str:
    """The plan's title for files and the calendar."""
    race = form.race[0].upper() + form.race[1:]
    return visible(f"{race} plan for {form.name}" if form.name else f"{race} plan")


def day_columns(plan: RunningPlan) -> list[str]:
    """The plan's days as columns: weekdays from Monday, then the others in the order of the text."""
    named = list(dict.fromkeys(day for _, day, _ in plan.table))
    return [day for day in SHORT_DAYS if day in named] + [day for day in named if day not in SHORT_DAYS]


def cells(plan: RunningPlan) -> dict[int, dict[str, str]]:
    """Week → day → text."""
    table: dict[int, dict[str, str]] = {}
    for week, day, text in plan.table:
        table.setdefault(week, {})[day] = visible(text)
    return table


def table_html(text: str) -> str:
    """The plan in `text` as a table with a row per week and a column per day, or a sentence if none can be read."""
    plan = parse_plan(text)
    if not plan.table:
        return '<p class="hint">No weeks and days can be read from this text, so there is no table.</p>'
    columns = day_columns(plan)
    # The demo's plans name the unit once, at their head.
    unit = re.search(r"\bin (km|kilomet(?:re|er)s|miles)\b", text)
    distances = f", distances in {unit[1]}" if unit else ""
    head = "".join(f'<th scope="col">{escape(day)}</th>' for day in columns)
    rows = ""
    for week, row in cells(plan).items():
        texts = "".join(f"<td>{escape(row.get(day, ''))}</td>" for day in columns)
        rows += f'<tr><th scope="row">{week}</th>{texts}</tr>'
    return (
        f'<p class="hint">The tuned model’s plan, week by week{distances}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="The plan as a table"><table class="plan">'
        f'<thead><tr><th scope="col">Week</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
