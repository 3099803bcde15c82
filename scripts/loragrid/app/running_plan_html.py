"""What the page says of a plan: did it follow the request, its summary, and its table of weeks and days. HTML, escaped."""

from dataclasses import dataclass
from html import escape

from loragrid.app.running_plan_form import DAY_NAMES, NO_DAY, RunningPlanForm
from loragrid.formatting import visible
from loragrid.running_plans.reading import RunningPlan, parse_plan

SHORT_DAYS = tuple(name[:3] for name in DAY_NAMES)


@dataclass(frozen=True)
class Adherence:
    """The plan's measure against the request: a sentence and whether each part was followed."""

    weeks_right: bool
    days_right: bool
    sentence: str

    @property
    def followed(self) -> bool:
        return self.weeks_right and self.days_right


def measure_adherence(form: RunningPlanForm, text: str) -> Adherence:
    """Read the plan in `text` and say how it compares with what was asked."""
    plan = parse_plan(text)
    weeks_right, days_right = plan.weeks == form.weeks, plan.days_per_week == form.days_per_week
    asked = f"asked {_size(form.weeks, form.days_per_week)}"
    if plan.weeks is None and plan.days_per_week is None:
        return Adherence(False, False, f"✗ {asked}, no plan can be read from this text")
    mark = "✓" if weeks_right and days_right else "✗"
    return Adherence(weeks_right, days_right, f"{mark} {asked}, got {_size(plan.weeks, plan.days_per_week)}")


def _size(weeks: int | None, days: int | None) -> str:
    return f"{_count(weeks, 'week')} × {_count(days, 'day')}"


def _count(number: int | None, what: str) -> str:
    return f"{'?' if number is None else number} {what}{'' if number == 1 else 's'}"


def adherence_html(adherence: Adherence) -> str:
    """The adherence as a line of its own; the mark says it without colour too."""
    return f'<p class="adherence {"good" if adherence.followed else "bad"}">{escape(adherence.sentence)}</p>'


def summary_lines(form: RunningPlanForm) -> list[tuple[str, str]]:
    """What was asked, as (term, value)."""
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


def summary_html(form: RunningPlanForm, asked: str) -> str:
    """The summary card: what was asked, and the very words that the model read."""
    rows = "".join(f"<div><dt>{term}</dt><dd>{escape(value)}</dd></div>" for term, value in summary_lines(form))
    words = f"<details><summary>The request as the model read it</summary><p>{escape(visible(asked))}</p></details>"
    return f'<section class="summary" aria-label="Plan summary"><dl>{rows}</dl>{words}</section>'


def heading(form: RunningPlanForm) -> str:
    """The plan's title, in files and the calendar."""
    race = form.race[0].upper() + form.race[1:]
    return visible(f"{race} plan for {form.name}" if form.name else f"{race} plan")


def day_columns(plan: RunningPlan) -> list[str]:
    """The plan's days as columns: weekdays from Monday on, then others as they come."""
    named = list(dict.fromkeys(day for _, day, _ in plan.table))
    return [day for day in SHORT_DAYS if day in named] + [day for day in named if day not in SHORT_DAYS]


def cells(plan: RunningPlan) -> dict[int, dict[str, str]]:
    """Week → day → text."""
    table: dict[int, dict[str, str]] = {}
    for week, day, text in plan.table:
        table.setdefault(week, {})[day] = visible(text)
    return table


def table_html(text: str) -> str:
    """The tuned model's plan in `text` as a table, weeks down and days across; a sentence where none can be read."""
    plan = parse_plan(text)
    if not plan.table:
        return '<p class="hint">No weeks and days can be read from this text, so there is no table of it.</p>'
    columns = day_columns(plan)
    head = "".join(f'<th scope="col">{escape(day)}</th>' for day in columns)
    rows = "".join(
        f'<tr><th scope="row">{week}</th>'
        + "".join(f"<td>{escape(row.get(day, ''))}</td>" for day in columns)
        + "</tr>"
        for week, row in cells(plan).items()
    )
    return (
        '<p class="hint">The tuned model’s plan, week by week</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="The plan as a table"><table class="plan">'
        f'<thead><tr><th scope="col">Week</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
