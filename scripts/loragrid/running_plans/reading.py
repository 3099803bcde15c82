"""Reads a running-training plan from free text in any model's layout: its weeks, running days and race.

Counting rules:
- A week opens with a label at the start of a line ("Week 3:", "## Weeks 1-2", "Third week", a table's row or column) or
  in the brackets of a heading ("Base (weeks 1-4)"). "This 8-week plan" is a claim and does not count. Distinct numbers
  are counted. "Race week:" without a number counts only if it has days.
- A day is named ("Day 3", "Wed", "Monday and Friday") or is an unnamed entry of a list under a week. It is a *running*
  day unless its text opens with rest or holds only other exercise ("yoga", "cross-training", "walk"). Days off never
  count, listed or not. A named day without text does not count.
- A week without days may state their number ("Weeks 1-2: 3 runs of 4 km").
- Days per week is the most frequent number of running days over the weeks that have any; on a tie, the earliest.
"""

import re
from dataclasses import dataclass
from statistics import mode
from typing import Protocol

from loragrid.running_plans.labels import labelled_days, split_lines, week_label
from loragrid.running_plans.tables import flatten_tables
from loragrid.running_plans.vocabulary import NUMBER, WEEKDAYS, is_running, race_in, to_number

# Ten times the longest real plan: the rest of a longer text is ignored, so that reading time stays bounded.
READ_CHARACTERS = 200_000

_RUNS = re.compile(
    rf"\b(?P<runs>{NUMBER})\s*(?:[x×]\s*)?(?:[a-z-]+\s+){{0,2}}(?:runs|times|days|sessions)\b", re.IGNORECASE
)
_LIST_ENTRY = re.compile(r"\s*(?:[-*•+–]|\d{1,2}[.)])\s+(?=\S)")
_HEADING = re.compile(r"\s*(?:#|\*\*[^*]*\*\*\s*:?\s*$|[^:]{1,40}:\s*$)")


@dataclass(frozen=True)
class RunningPlan:
    """The plan read from a text. `per_week`: running days of each week, in order; `table`: (week, day, text), days off
    included.

    `weeks`: None if no week is named; such a text's days are in week 1. `days_per_week`: None without a running day.
    `race`: "5K", "10K", "half marathon", "marathon", or None if no race is named.
    """

    weeks: int | None
    days_per_week: int | None
    race: str | None
    per_week: tuple[int, ...]
    table: tuple[tuple[int, str, str], ...]


class Request(Protocol):
    """A request for a plan: any object with these attributes."""

    race: str
    weeks: int
    days_per_week: int


def adherence(request: Request, text: str) -> dict[str, float]:
    """Whether the plan in `text` follows `request`, 1.0 or 0.0 each: exact (all others), weeks_right, days_right,
    race_named."""
    plan = parse_plan(text)
    requested = race_in(request.race, sessions=False) or request.race.casefold()
    race_named = requested == (plan.race or "")
    if plan.race is None:
        # A race outside the vocabulary ("Parkrun") counts if the text names it literally.
        race_named = race_named or requested in text[:READ_CHARACTERS].casefold()
    right = {
        "weeks_right": plan.weeks == request.weeks,
        "days_right": plan.days_per_week == request.days_per_week,
        "race_named": race_named,
    }
    return {"exact": float(all(right.values()))} | {name: float(value) for name, value in right.items()}


def parse_plan(text: str) -> RunningPlan:
    """The plan in `text`, read by the module's counting rules. A text without a plan gives None and ()."""
    reader = _Reader()
    for line in flatten_tables(split_lines(text[:READ_CHARACTERS])):
        reader.read(line)
    return reader.plan()


class _Reader:
    """Reads a plan line by line and keeps the current weeks and days."""

    def __init__(self) -> None:
        self.named_weeks: set[int] = set()
        self.last_week = 0  # the highest week that is named or has days
        self.current_weeks: tuple[int, ...] = (1,)
        self.days: dict[int, dict[str, str]] = {}
        self.unnamed_days: dict[int, list[str]] = {}
        self.stated_runs: dict[int, int] = {}
        self.open_days: list[str] = []
        self.race: str | None = None

    def read(self, line: str) -> None:
        label = week_label(line, next_week=self.last_week + 1 if self.named_weeks else None)
        if label.is_numbered:
            self.named_weeks.update(label.weeks)
            self.last_week = max(self.last_week, *label.weeks)
        if label.weeks:
            self.current_weeks, self.open_days = label.weeks, []
        opens_week = bool(label.weeks)
        days = list(labelled_days(label.text, opens_week=opens_week, under_day=bool(self.open_days)))
        # Before the plan "5 km" names the race. Inside it, "5 km" is the distance of a run.
        in_plan = bool(self.named_weeks or self.days)
        self.race = self.race or race_in(line, sessions=in_plan or bool(days))
        if days:
            for names, text in days:
                self.open_days = names
                self._add(names, text)
        elif opens_week:
            self._read_week_text(label.text)
        elif self.open_days:
            self._continue_day(line)
        elif self.named_weeks and (entry := _LIST_ENTRY.match(line)):
            self._add_unnamed([line[entry.end() :]])

    def plan(self) -> RunningPlan:
        table, per_week = [], []
        for week in sorted(self.named_weeks | self.days.keys()):
            entries = self._entries(week)
            table += [(week, day, text) for day, text in entries.items()]
            if entries:
                per_week.append(sum(map(is_running, entries.values())))
            else:
                per_week.append(self.stated_runs.get(week, 0))
        if not self.named_weeks and len(self.days.get(1, {})) > len(WEEKDAYS):
            per_week = []  # days numbered through without weeks: the number in a week is unknown
        return RunningPlan(
            weeks=len(per_week) if self.named_weeks else None,
            days_per_week=mode(filter(None, per_week)) if any(per_week) else None,
            race=self.race,
            per_week=tuple(per_week),
            table=tuple(table),
        )

    def _entries(self, week: int) -> dict[str, str]:
        """Day → text of a week: its named days, or else its unnamed ones as "Run 1", "Run 2" and so on."""
        if self.days.get(week):
            return self.days[week]
        return {f"Run {i}": text for i, text in enumerate(self.unnamed_days.get(week, []), start=1)}

    def _read_week_text(self, text: str) -> None:
        """Read a week's own line without named days: a list of runs with their distances, or a number of runs."""
        parts = [part for part in re.split(r"[,;]", text) if part.strip()]
        if stated := _RUNS.search(text):
            self.stated_runs |= {week: to_number(stated["runs"]) for week in self.current_weeks}
        # Every part needs a number: "easy pace, enjoy" is no list of runs.
        elif len(parts) > 1 and all(re.search(r"\d", part) and is_running(part) for part in parts):
            self._add_unnamed(parts)

    def _add(self, days: list[str], text: str) -> None:
        self.last_week = max(self.last_week, *self.current_weeks)
        for week in self.current_weeks:
            entries = self.days.setdefault(week, {})
            for day in days:
                entries[day] = f"{entries[day]} {text}".strip() if day in entries else text

    def _add_unnamed(self, texts: list[str]) -> None:
        for week in self.current_weeks:
            self.unnamed_days.setdefault(week, []).extend(text.strip() for text in texts)

    def _continue_day(self, line: str) -> None:
        """Add a line to the day above it, until a heading follows the day's text."""
        has_text = any(self.days[week][day] for week in self.current_weeks for day in self.open_days)
        if has_text and _HEADING.match(line):
            self.open_days = []
        elif text := line.strip(" \t-*•+#`_"):
            self._add(self.open_days, text)
